// One job: models and inputs are fetched, run, and timed or their outputs returned. What is found goes to page.js.

const COARSE = crossOriginIsolated ? 0.005 : 0.1; // ms, resolution of the clock
const TICKS = 20; // ticks of the clock that a sample lasts at least
const ARRAYS = {
  float32: Float32Array, float64: Float64Array, float16: globalThis.Float16Array ?? Uint16Array, uint8: Uint8Array,
  int8: Int8Array, uint16: Uint16Array, int16: Int16Array, int32: Int32Array, uint32: Uint32Array,
  int64: BigInt64Array, uint64: BigUint64Array, bool: Uint8Array,
};
const CODES = {
  float32: "<f4", float64: "<f8", float16: "<f2", uint8: "|u1", int8: "|i1", uint16: "<u2", int16: "<i2", int32: "<i4",
  uint32: "<u4", int64: "<i8", uint64: "<u8", bool: "|b1",
};
let hidden = false;
let disturbed = false;
let shown = null;
let ort = null;

const tell = (content) => postMessage(content);
const progress = (text, done, total) => tell({ kind: "progress", text, done, total });

// Lets messages in: a run on one thread resolves at once, and would keep them out until the end.
const channel = new MessageChannel();
const breathe = () => new Promise((resolve) => { channel.port1.onmessage = resolve; channel.port2.postMessage(0); });

async function bytes(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.arrayBuffer();
}

async function adapterOf(job) {
  if (job.provider !== "webgpu") return null;
  const adapter = await navigator.gpu?.requestAdapter();
  if (!adapter) throw new Error("provider webgpu must be available, this browser has no adapter for it");
  const info = adapter.info ?? {};
  if (adapter.isFallbackAdapter || info.isFallbackAdapter) {
    throw new Error("provider webgpu must be a real adapter, this browser has one in software only");
  }
  return info;
}

async function load(job) {
  const gpu = await adapterOf(job);
  ort = await import(gpu ? "./ort/ort.webgpu.min.mjs" : "./ort/ort.wasm.min.mjs");
  const wanted = job.threads || navigator.hardwareConcurrency;
  ort.env.wasm.numThreads = crossOriginIsolated ? Math.min(wanted, navigator.hardwareConcurrency) : 1;
  ort.env.wasm.wasmPaths = new URL("./ort/", import.meta.url).href;
  ort.env.logLevel = "error";
  return gpu;
}

function session(model, job) {
  return ort.InferenceSession.create(model, {
    executionProviders: [job.provider],
    graphOptimizationLevel: "all",
    extra: { session: { set_denormal_as_zero: "1" } },
  });
}

// Inputs of one batch, by name; `data` holds all of them one after the other.
function feedsOf(job, data, batch) {
  const feeds = {};
  for (const { name, dtype, shape, offset } of job.inputs) {
    const size = shape.reduce((product, n) => product * n, 1);
    const Kind = ARRAYS[dtype];
    const start = offset + batch * size * Kind.BYTES_PER_ELEMENT;
    feeds[name] = new ort.Tensor(dtype, new Kind(data, start, size), shape);
  }
  return feeds;
}

async function open(model, job, timing, feeds) {
  const start = performance.now();
  const made = await session(model, job);
  const opened = performance.now();
  await made.run(feeds);
  timing.first_ms.push(performance.now() - opened);
  timing.init_ms.push(opened - start);
  for (let i = 1; i < job.limits.warm_up; i++) {
    const again = performance.now();
    await made.run(feeds);
    timing.warm_ms = performance.now() - again;
  }
  return made;
}

async function oneRound(models, job, feeds, number, plan) {
  const timing = models.map(() => ({ init_ms: [], first_ms: [], wall_ms: [] }));
  const order = [...models.keys()];
  if (number % 2 === 0) order.reverse();
  const sessions = new Map();
  for (const i of order) sessions.set(i, await open(models[i], job, timing[i], feeds));
  plan.runs ??= runsPerRound(timing, job);
  plan.times ??= timing.map((one) => Math.ceil((TICKS * COARSE) / Math.max(one.warm_ms, COARSE)));
  for (let run = 0; run < plan.runs / 2; run++) {
    await breathe();
    for (const i of [...order, ...order.slice().reverse()]) {
      const start = performance.now();
      for (let k = 0; k < plan.times[i]; k++) await sessions.get(i).run(feeds);
      timing[i].wall_ms.push((performance.now() - start) / plan.times[i]);
    }
  }
  await breathe();
  for (const one of sessions.values()) await one.release();
  return {
    wall_ms: timing.map((one) => one.wall_ms),
    init_ms: timing.map((one) => one.init_ms[0]),
    first_ms: timing.map((one) => one.first_ms[0]),
  };
}

function runsPerRound(timing, job) {
  const { max_rounds: rounds, min_runs: least, max_runs: most } = job.limits;
  const allMs = timing.reduce((sum, one) => sum + one.first_ms[0], 0);
  const runs = job.runs
    ? Math.ceil(job.runs / rounds)
    : Math.min(most, Math.max(least, Math.floor((job.budget_s * 1e3) / rounds / Math.max(allMs, 1e-6))));
  return runs + (runs % 2);
}

async function measure(models, job, data) {
  const feeds = feedsOf(job, data, 0);
  const { min_rounds: least, max_rounds: most } = job.limits;
  const [plan, start] = [{}, performance.now()];
  for (let number = 1, dropped = 0; ; ) {
    disturbed = hidden;
    const round = await oneRound(models, job, feeds, number, plan);
    if (disturbed || hidden) {
      progress(`Hidden: round ${number} is measured again once this page is in front`, number - 1, most);
      tell({ kind: "dropped", dropped: ++dropped });
      if (hidden) await new Promise((resolve) => (shown = resolve));
      continue;
    }
    tell({ kind: "round", ...round });
    const late = performance.now() - start > job.budget_s * 1e3 && !job.runs;
    const last = number === most || (late && number >= least && number % 2 === 0);
    progress(`Round ${number} of ${last ? number : most}`, number, last ? number : most);
    if (last) return;
    number++;
  }
}

function encoded(tensor) {
  const raw = new Uint8Array(tensor.data.buffer, tensor.data.byteOffset, tensor.data.byteLength);
  let text = "";
  for (let i = 0; i < raw.length; i += 0x8000) text += String.fromCharCode(...raw.subarray(i, i + 0x8000));
  return { dtype: CODES[tensor.type], shape: [...tensor.dims], data: btoa(text) };
}

async function outputs(models, job, data) {
  const found = [];
  for (const [number, model] of models.entries()) {
    const made = await session(model, job);
    found.push([]);
    for (let batch = 0; batch < job.n_batches; batch++) {
      const result = await made.run(feedsOf(job, data, batch), job.names);
      found.at(-1).push(job.names.map((name) => encoded(result[name])));
      progress("Comparing outputs", number * job.n_batches + batch + 1, models.length * job.n_batches);
    }
    await made.release();
  }
  tell({ kind: "outputs", outputs: found });
}

async function machine(gpu) {
  const data = navigator.userAgentData;
  const more = await data?.getHighEntropyValues?.(["architecture", "model", "platformVersion"]).catch(() => null);
  const flags = ["wasm"];
  if (crossOriginIsolated) flags.push("threads");
  if (navigator.gpu) flags.push("webgpu");
  return {
    agent: navigator.userAgent,
    system: more?.platformVersion ? `${data.platform} ${more.platformVersion}` : "",
    architecture: more?.architecture ?? "",
    model: more?.model ?? "",
    gpu: gpu ? [gpu.vendor, gpu.architecture, gpu.description].filter(Boolean).join(" ") : "",
    flags,
    cores: navigator.hardwareConcurrency,
    memory_gib: navigator.deviceMemory ?? null,
    onnxruntime: ort.env.versions.web ?? ort.env.versions.common,
    threads: ort.env.wasm.numThreads,
    isolated: crossOriginIsolated,
  };
}

async function run(job) {
  const gpu = await load(job);
  tell({ kind: "machine", machine: await machine(gpu) });
  if (job.task !== "machine") {
    const models = [];
    for (let i = 0; i < job.n_models; i++) {
      progress(`Fetching model ${i + 1} of ${job.n_models}`, i, job.n_models);
      models.push(new Uint8Array(await bytes(`job/${i}.onnx`)));
    }
    const data = await bytes("job/feeds.bin");
    await (job.task === "measure" ? measure : outputs)(models, job, data);
  }
  tell({ kind: "done" });
}

onmessage = ({ data }) => {
  hidden = data.hidden;
  disturbed ||= hidden;
  if (!hidden && shown) { shown(); shown = null; }
  if (data.job) run(data.job).catch((error) => tell({ kind: "error", text: String(error?.message ?? error).slice(0, 500) }));
};
