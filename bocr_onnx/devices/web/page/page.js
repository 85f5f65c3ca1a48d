// Keeps the connection, starts a worker for every job, and shows how far it is. All measuring is in worker.js.

const $ = (id) => document.getElementById(id);
let session = null;
let worker = null;
let job = null;
let samples = [];
let reported = Promise.resolve(); // reports go one after the other, in their order

function say(text, bad = false) {
  $("state").textContent = text;
  $("state").classList.toggle("bad", bad);
}

async function features() {
  const found = {
    "Threads": crossOriginIsolated ? `up to ${navigator.hardwareConcurrency}` : "one: more need https or localhost",
    "Clock": crossOriginIsolated ? "5 µs" : "100 µs: runs are timed in batches",
    "WebGPU": "none",
  };
  if (navigator.gpu) {
    const adapter = await navigator.gpu.requestAdapter().catch(() => null);
    const info = adapter?.info ?? {};
    if (adapter) found.WebGPU = [info.vendor, info.architecture].filter(Boolean).join(" ") || "yes";
    if (adapter?.isFallbackAdapter || info.isFallbackAdapter) found.WebGPU = "in software only";
  }
  $("features").replaceChildren(...Object.entries(found).flatMap(([name, value]) => {
    const [term, text] = [document.createElement("dt"), document.createElement("dd")];
    [term.textContent, text.textContent] = [name, value];
    return [term, text];
  }));
}

function report(content) {
  const body = JSON.stringify({ job: job.job, ...content });
  const headers = { "X-Session": session, "Content-Type": "application/json" };
  reported = reported.then(() => fetch("report", { method: "POST", headers, body })).catch(() => null);
  return reported;
}

const median = (values) => {
  const sorted = [...values].sort((a, b) => a - b);
  return (sorted[(sorted.length - 1) >> 1] + sorted[sorted.length >> 1]) / 2;
};

function showRound(round) {
  samples.push(round);
  const names = job.labels;
  const medians = names.map((_, i) => median(samples.flatMap((one) => one.wall_ms[i])));
  $("rows").replaceChildren(...names.map((name, i) => {
    const row = document.createElement("tr");
    const first = median(samples.map((one) => one.first_ms[i]));
    for (const text of [name, medians[i].toPrecision(3), first.toPrecision(3)]) {
      row.append(Object.assign(document.createElement("td"), { textContent: text }));
    }
    return row;
  }));
  const ratio = medians[0] / medians.at(-1);
  const words = ratio >= 1 ? `${ratio.toFixed(2)} times faster` : `${(1 / ratio).toFixed(2)} times slower`;
  $("verdict").textContent = names.length > 1 ? `${names.at(-1)} is ${words} than ${names[0]} here` : "";
  $("results").hidden = false;
}

function stop() {
  worker?.terminate();
  worker = null;
}

async function heard({ data }) {
  if (data.kind === "progress") {
    $("bar").value = data.done / data.total;
    say(data.text);
    return;
  }
  if (data.kind === "round") showRound(data);
  const answer = await report(data);
  if (data.kind === "error") say(data.text, true);
  if (data.kind === "done") say("Done. The figures are in the terminal; more may follow.");
  if (!answer?.ok && data.kind !== "error") say("The terminal did not take the figures.", true);
}

function begin(event) {
  stop();
  job = JSON.parse(event.data);
  samples = [];
  $("bar").value = 0;
  say("Starting…");
  worker = new Worker("worker.js", { type: "module" });
  worker.onmessage = heard;
  worker.onerror = (error) => heard({ data: { kind: "error", text: `worker: ${error.message ?? "it did not start"}` } });
  worker.postMessage({ job, hidden: document.visibilityState === "hidden" });
}

function connect() {
  const events = new EventSource("jobs");
  events.addEventListener("session", (event) => {
    session = JSON.parse(event.data).session;
    say("Connected. Waiting for work from the terminal…");
  });
  events.addEventListener("job", begin);
  events.addEventListener("idle", stop);
  events.addEventListener("end", () => {
    events.close();
    stop();
    $("bar").value = 1;
    say("Finished. You can close this page.");
  });
  events.onerror = () => {
    const refused = events.readyState === EventSource.CLOSED;
    stop();
    say(refused ? "Another page is connected, or the terminal has finished." : "The connection was lost.", true);
    if (refused) setTimeout(connect, 2000);
  };
}

document.addEventListener("visibilitychange", () => {
  worker?.postMessage({ hidden: document.visibilityState === "hidden" });
});
await features();
connect();
