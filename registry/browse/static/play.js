// The playground: sends the form, shows what comes line by line, stops when asked. Without it the form works too.
"use strict";

const form = document.getElementById("play");
if (form) {
  const by = (id) => document.getElementById(id);
  const [go, stop, state] = [by("go"), by("stop"), by("state")];
  let running = null;

  for (const slot of form.querySelectorAll(".slot")) {
    const range = slot.querySelector("input[type=range]");
    const shown = slot.querySelector("output");
    range.addEventListener("input", () => { shown.textContent = Number(range.value).toFixed(2); });
  }

  const number = (value) => (value === null || value === undefined ? "–" : Number(value).toPrecision(3));

  const show = (event) => {
    if (event.kind === "token") {
      const part = document.createElement("span");
      part.textContent = event.text;
      if (event.side === "steered") {
        part.className = `kl kl-${event.level}`;
        part.title = `KL ${Number(event.kl).toFixed(2)}`;
      }
      by(event.side).append(part);
      state.textContent = "Writing…";
    } else if (event.kind === "price") {
      by("kl").textContent = `${number(event.kl)} nats per token`;
      by("perplexity").textContent =
        `${number(event.perplexity)}, of the unsteered text ${number(event.unsteered_perplexity)}`;
    } else if (event.kind === "waiting") {
      state.textContent = `Waiting: ${event.before} before you.`;
    } else if (event.kind === "loading") {
      state.textContent = "Loading the model…";
    } else if (event.kind === "error") {
      state.textContent = event.text;
    } else if (event.kind === "end") {
      state.textContent = event.stopped ? "Stopped." : "Done.";
    }
  };

  const read = async (answer) => {
    const reader = answer.body.getReader();
    const decoder = new TextDecoder();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      rest += decoder.decode(value, { stream: true });
      const lines = rest.split("\n");
      rest = lines.pop();
      for (const line of lines) if (line) show(JSON.parse(line));
    }
  };

  const write = async () => {
    running = new AbortController();
    go.disabled = true;
    stop.disabled = false;
    for (const id of ["unsteered", "steered"]) by(id).replaceChildren();
    for (const id of ["kl", "perplexity"]) by(id).textContent = "–";
    state.textContent = "Asking…";
    try {
      const answer = await fetch("/play", {
        method: "POST",
        body: new URLSearchParams(new FormData(form)),
        headers: { Accept: "application/x-ndjson" },
        signal: running.signal,
      });
      if (answer.status === 401) state.textContent = "The registry wants its token again; load this page anew.";
      else await read(answer);
    } catch (error) {
      state.textContent = error.name === "AbortError" ? "Stopped." : "The connection was lost; ask again.";
    }
    running = null;
    go.disabled = false;
    stop.disabled = true;
  };

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!running) write();
  });
  stop.addEventListener("click", () => { if (running) running.abort(); });
}
