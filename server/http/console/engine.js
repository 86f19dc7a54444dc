// The engine's state, from /metrics, once a second while it is looked at.

import {getText} from "./api.js";
import {formatBytes, formatCount, formatLess} from "./trace.js";

const kIntervalMs = 1000;
const kPoints = 120;  // of a sparkline

// Text format to [{name, labels, value}].
export function parseMetrics(text) {
  const samples = [];
  for (const line of text.split("\n")) {
    const match = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$/.exec(line);
    if (!match) continue;
    const labels = {};
    for (const [, key, value] of (match[2] ?? "").matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)) labels[key] = value;
    samples.push({name: match[1], labels, value: Number(match[3])});
  }
  return samples;
}

// One scrape, with sums over labels.
class Scrape {
  constructor(text, time) {
    this.time = time;
    this.samples = parseMetrics(text);
  }

  of(name) {
    return this.samples.filter((sample) => sample.name === name);
  }

  sum(name, label, value) {
    return this.of(name).filter(({labels}) => !label || labels[label] === value)
      .reduce((sum, sample) => sum + sample.value, 0);
  }
}

function show(id, text) {
  const element = document.getElementById(id);
  if (element.textContent !== text) element.textContent = text;
}

export class EngineView {
  constructor(onError) {
    this.onError = onError;
    this.timer = 0;
    this.last = null;
    this.rates = {generated: [], prompt: []};
  }

  setVisible(visible) {
    clearTimeout(this.timer);
    this.timer = 0;
    this.visible = visible;
    if (visible) this.poll();
  }

  async poll() {
    if (!document.hidden) {
      try {
        this.show(new Scrape(await getText("metrics"), performance.now()));
        this.onError(null);
      } catch (error) {
        this.last = null;
        this.onError(error);
      }
    }
    clearTimeout(this.timer);
    if (this.visible) this.timer = setTimeout(() => this.poll(), kIntervalMs);
  }

  show(now) {
    const before = this.last;
    this.last = now;
    const rate = (name) => before === null ? 0
      : Math.max(0, now.sum(name) - before.sum(name)) / ((now.time - before.time) / 1000);
    this.showRate("generated", rate("vllm:generation_tokens_total"));
    this.showRate("prompt", rate("vllm:prompt_tokens_total"));
    this.showSteps(rate("nsa_step_duration_seconds_count"), rate("nsa_step_duration_seconds_sum"));
    show("m-running", formatCount(now.sum("vllm:num_requests_running")));
    show("m-waiting", formatCount(now.sum("vllm:num_requests_waiting")));
    show("m-idle", `${now.sum("nsa_seconds_since_last_step").toFixed(1)} s`);
    show("m-preemptions", formatCount(now.sum("vllm:num_preemptions_total")));
    show("m-refused", formatCount(now.sum("vllm:admission_rejections_total")));
    this.showPages(now);
    this.showCaches(now);
    this.showEnded(now);
    const build = now.of("nsa_build_info")[0]?.labels ?? {};
    show("engine-about", `${build.model_name} · ${build.architecture} · attention ${build.attention} · version ${build.version}`);
  }

  showRate(name, rate) {
    const points = this.rates[name];
    points.push(rate);
    if (points.length > kPoints) points.shift();
    show(`m-${name}`, formatCount(Math.round(rate)));
    const highest = Math.max(1, ...points);
    const line = points.map((value, i) => `${kPoints - points.length + i + 1},${29 - 27 * value / highest}`);
    document.querySelector(`#spark-${name} polyline`).setAttribute("points", line.join(" "));
  }

  showSteps(perSecond, busy) {
    show("m-steps", formatCount(Math.round(perSecond)));
    show("m-step-time", perSecond > 0 ? `${(1000 * busy / perSecond).toFixed(1)} ms each` : "");
  }

  showPages(now) {
    const [owned, cached, free] = ["owned", "cached", "free"].map((state) => now.sum("nsa_pages", "state", state));
    const all = owned + cached + free;
    document.getElementById("pages-owned").style.width = `${100 * owned / all}%`;
    document.getElementById("pages-cached").style.width = `${100 * cached / all}%`;
    show("m-pages", `${formatCount(owned)} owned, ${formatCount(cached)} cached, ${formatCount(free)} free`);
  }

  showCaches(now) {
    const queries = now.sum("vllm:prefix_cache_queries_total");
    const hits = now.sum("vllm:prefix_cache_hits_total");
    show("m-hits", queries > 0 ? `${Math.round(100 * hits / queries)} %` : "–");
    const read = now.sum("nsa_kv_bytes_read_total");
    const dense = now.sum("nsa_kv_bytes_dense_total");
    show("m-less", read > 0 ? formatLess(read, dense) : "–");
    show("m-bytes", read > 0 ? `${formatBytes(read)} of ${formatBytes(dense)}` : "");
  }

  showEnded(now) {
    const ended = now.of("vllm:request_success_total").filter(({value}) => value > 0);
    show("m-ended", formatCount(ended.reduce((sum, {value}) => sum + value, 0)));
    show("m-reasons", ended.map(({labels, value}) => `${formatCount(value)} ${labels.finished_reason}`).join(", "));
  }
}
