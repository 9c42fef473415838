import pytest
from hypothesis import given
from hypothesis import strategies as st

from contrans.errors import RegistryError
from registry import Result
from registry.gates import Comparison, Joined, comparisons, parse_gate, shortfalls

ROWS = [
    Result("anger", "emotion", "test", "transplanted", "gain_recovered", 0.2, 0.8, 0.72, 0.9),
    Result("joy", "emotion", "test", "transplanted", "gain_recovered", 0.2, 0.9, 0.62, 0.95),
    Result("anger", "emotion", "dev", "transplanted", "gain_recovered", 0.2, 0.1, 0.0, 0.2),
    Result("anger", "emotion", "test", "random", "gain_recovered", 0.2, 0.01),
    Result("all", "emotion", "generic", "transplanted", "kl", 0.2, 0.09),
    Result("anger", "emotion", "test", "transplanted", "undefined", 0.2, None),
    Result("anger", "emotion", "test", "own", "logit_accuracy", 0.2, 0.95),
]


@pytest.mark.parametrize(
    ("gate", "clauses"),
    [
        ("gain_recovered > .7", []),
        ("gain_recovered.value >= 0.8", []),
        ("gain_recovered > .8", ["gain_recovered of anger is 0.8, not > 0.8"]),
        ("gain_recovered.low > .7", ["gain_recovered.low of joy is 0.62, not > 0.7"]),
        ("gain_recovered.high < .96 and kl < .1", []),
        (
            "gain_recovered.low > .7 and kl < .05",
            ["gain_recovered.low of joy is 0.62, not > 0.7", "kl of all is 0.09, not < 0.05"],
        ),
        ("gain_recovered.low > .7 or kl < .1", []),
        (
            "kl > 1 or (kl > 2 and kl > 3)",
            ["kl of all is 0.09, not > 1 and kl of all is 0.09, not > 2 and kl of all is 0.09, not > 3"],
        ),
        ("kl > 1 and kl > 2 or kl < 1", []),
        ("kl < 1 and (kl > 2 or kl < 1)", []),
        ("random/gain_recovered < .1", []),
        ("own/logit_accuracy > 9e-1", []),
        ("kl.low > 0", ["kl.low of all is not defined"]),
        ("undefined < 1", ["undefined of anger is not defined"]),
        ("nosuch > 0", ["nosuch was not measured"]),
        ("kl > -1", []),
    ],
)
def test_shortfalls(gate: str, clauses: list[str]) -> None:
    assert shortfalls(parse_gate(gate), ROWS) == clauses
    assert shortfalls(parse_gate(str(parse_gate(gate))), ROWS) == clauses


@pytest.mark.parametrize(
    ("gate", "message"),
    [
        ("", "at its end .*a metric such as"),
        ("kl >", "at its end .*a number is expected"),
        ("kl > low", "at 'low' .*a number is expected"),
        ("kl", "one of > >= < <= is expected"),
        ("kl == 1", "at '=' .*character 4"),
        ("kl > 1 kl < 2", "at 'kl' .*`and`, `or` or the end"),
        ("(kl > 1", "closing parenthesis"),
        ("kl > 1)", "at '\\)'"),
        ("kl.mean > 1", "`.low`, `.high` or `.value`"),
        ("a/b/c > 1", "one arm"),
        ("and > 1", "at 'and'"),
        ("kl > 1e999", "too large"),
        ("kl > 1.2.3", "at '1'"),
        ("__import__('os') > 1", "one of > >= < <="),
        ("(" * 60 + "kl > 1" + ")" * 60, "nests deeper than 50"),
        ("kl > 1 and " * 1000 + "kl > 1", "too long"),
    ],
)
def test_what_is_no_gate_is_a_sentence(gate: str, message: str) -> None:
    with pytest.raises(RegistryError, match=message):
        parse_gate(gate)


@given(st.text() | st.text(alphabet="kl><=()./ andor019e-+"))
def test_any_text_is_a_gate_or_refused(text: str) -> None:
    try:
        gate = parse_gate(text)
    except RegistryError:
        return
    assert parse_gate(str(gate)) == gate


names = st.sampled_from(["kl", "gain_recovered", "andy", "or_else", "t-stat"])
compared = st.builds(
    Comparison,
    st.sampled_from(["transplanted", "own", "shuffled_map"]),
    names,
    st.sampled_from(["value", "low", "high"]),
    st.sampled_from([">", ">=", "<", "<="]),
    st.floats(allow_nan=False, allow_infinity=False),
)
gates = st.recursive(
    compared,
    lambda inner: st.builds(Joined, st.sampled_from(["and", "or"]), st.lists(inner, min_size=2, max_size=3).map(tuple)),
    max_leaves=8,
)


@given(gates)
def test_a_gate_reads_back_as_it_was_written(gate) -> None:
    assert parse_gate(str(gate)) == gate
    assert len(list(comparisons(gate))) >= 1
