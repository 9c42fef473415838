"""llama.cpp itself, by the C functions of the library that the wheel `xllamacpp` carries.

The wheel's own Python classes take no control vectors and give no logits, but its library exports llama.h. Parameters
are made by llama.cpp and handed back unread, so their layout does not matter; control vectors are read by
`common_control_vector_load`, the loader behind `llama-cli --control-vector`, and applied with the arguments that
`common_init_from_params` gives.
"""

import ctypes as c
from pathlib import Path
from typing import Any

import numpy as np

from tests.interop.missing import missing, package

Numbers = np.ndarray[Any, np.dtype[np.float32]]


class _Opaque(c.Structure):
    """A struct that llama.cpp fills and takes by value; larger than any of its own, which are read from the start."""

    _fields_ = (("raw", c.c_byte * 1024),)


class _Vector(c.Structure):
    """std::vector."""

    _fields_ = (("begin", c.c_void_p), ("end", c.c_void_p), ("capacity", c.c_void_p))


class _Info(c.Structure):
    """common_control_vector_load_info: strength, and a std::string of the ABI before C++11 (one pointer)."""

    _fields_ = (("strength", c.c_float), ("name", c.c_void_p))


class _Data(c.Structure):
    """common_control_vector_data."""

    _fields_ = (("n_embd", c.c_int32), ("data", _Vector), ("spare", c.c_byte * 64))


_Log = c.CFUNCTYPE(None, c.c_int, c.c_char_p, c.c_void_p)


class Library:
    """The functions of llama.h and of llama.cpp's common library that are needed here."""

    def __init__(self) -> None:
        path = next(Path(package("xllamacpp").__file__).parent.glob("xllamacpp*.so"))
        lib = self.lib = c.CDLL(str(path))
        self.said: list[str] = []
        self._log = _Log(lambda _level, text, _data: self.said.append(text.decode("utf-8", "replace")))
        for name, result, arguments in (
            ("llama_log_set", None, (_Log, c.c_void_p)),
            ("llama_backend_init", None, ()),
            ("llama_model_default_params", _Opaque, ()),
            ("llama_model_load_from_file", c.c_void_p, (c.c_char_p, _Opaque)),
            ("llama_model_n_layer", c.c_int32, (c.c_void_p,)),
            ("llama_model_get_vocab", c.c_void_p, (c.c_void_p,)),
            ("llama_vocab_n_tokens", c.c_int32, (c.c_void_p,)),
            ("llama_model_free", None, (c.c_void_p,)),
            ("llama_context_default_params", _Opaque, ()),
            ("llama_init_from_model", c.c_void_p, (c.c_void_p, _Opaque)),
            ("llama_set_n_threads", None, (c.c_void_p, c.c_int32, c.c_int32)),
            (
                "llama_set_adapter_cvec",
                c.c_int32,
                (c.c_void_p, c.c_void_p, c.c_size_t, c.c_int32, c.c_int32, c.c_int32),
            ),
            ("llama_batch_get_one", _Opaque, (c.POINTER(c.c_int32), c.c_int32)),
            ("llama_decode", c.c_int32, (c.c_void_p, _Opaque)),
            ("llama_get_logits_ith", c.POINTER(c.c_float), (c.c_void_p, c.c_int32)),
            ("llama_free", None, (c.c_void_p,)),
        ):
            function = getattr(lib, name)
            function.restype, function.argtypes = result, arguments
        mangled = "_Z26common_control_vector_loadRKSt6vectorI31common_control_vector_load_infoSaIS0_EE"
        if not hasattr(lib, mangled):
            missing("this build of xllamacpp does not export llama.cpp's loader of control vectors")
        self.load_vectors = getattr(lib, mangled)
        self.load_vectors.restype, self.load_vectors.argtypes = _Data, (c.POINTER(_Vector),)
        lib.llama_log_set(self._log, None)
        lib.llama_backend_init()

    def control_vector(self, path: Path) -> _Data:
        """What `--control-vector PATH` makes of a file; `n_embd` is −1 where it is rejected."""
        text = str(path).encode()
        # length, capacity, reference count (−1: not to be shared), then the characters that the pointer points at
        string = c.create_string_buffer(24 + len(text) + 1)
        head = np.array([len(text), len(text), np.uint64(2**32 - 1)], dtype=np.uint64).tobytes()
        c.memmove(string, head + text + b"\0", 24 + len(text) + 1)
        info = _Info(1.0, c.addressof(string) + 24)
        end = c.addressof(info) + c.sizeof(info)
        return self.load_vectors(c.byref(_Vector(c.addressof(info), end, end)))


class Loaded:
    """A GGUF model in llama.cpp."""

    def __init__(self, library: Library, path: Path, *, threads: int = 1) -> None:
        self.library, lib = library, library.lib
        self.model = lib.llama_model_load_from_file(str(path).encode(), lib.llama_model_default_params())
        assert self.model, "".join(library.said[-8:])
        self.threads = threads
        self.n_layer = lib.llama_model_n_layer(self.model)
        self.n_vocab = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(self.model))

    def logits(self, ids: list[int], vector: Path | None = None) -> Numbers:
        """Logits after each token [tokens, vocabulary], with a control vector at scale 1 if one is given."""
        lib = self.library.lib
        context = lib.llama_init_from_model(self.model, lib.llama_context_default_params())
        assert context, "".join(self.library.said[-8:])
        try:
            lib.llama_set_n_threads(context, self.threads, self.threads)
            if vector is not None:
                found = self.library.control_vector(vector)
                assert found.n_embd > 0, "".join(self.library.said[-3:])
                n = (found.data.end - found.data.begin) // 4
                # from the first to the last layer, as common_init_from_params does without --control-vector-layer-range
                done = lib.llama_set_adapter_cvec(context, found.data.begin, n, found.n_embd, 1, self.n_layer)
                assert done == 0
            return np.stack([self._step(context, token) for token in ids])
        finally:
            lib.llama_free(context)

    def _step(self, context: int, token: int) -> Numbers:
        lib = self.library.lib
        one = (c.c_int32 * 1)(token)
        assert lib.llama_decode(context, lib.llama_batch_get_one(one, 1)) == 0
        return np.ctypeslib.as_array(lib.llama_get_logits_ith(context, -1), (self.n_vocab,)).copy()

    def free(self) -> None:
        self.library.lib.llama_model_free(self.model)
