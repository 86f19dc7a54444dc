// The sparsity view: what one token of the answer read, drawn from its trace; stepping through the
// tokens; the text of a block; the bytes.

import {postJson} from "./api.js";
import {History} from "./history.js";
import {Strip} from "./strip.js";
import {chosenBlocks, formatBytes, formatCount, formatLess, kAllLayers, numChoosers} from "./trace.js";

const kRestMs = 50;  // the pointer rests so long on a block before its text is asked for

const element = (id) => document.getElementById(id);

function formatRange(first, last) {
  return first === last ? `${first}` : `${first}${last === first + 1 ? ", " : " to "}${last}`;
}

// "3, 5 to 7": ascending numbers.
function formatRanges(numbers) {
  const ranges = [];
  for (const n of numbers) {
    if (ranges.length && ranges.at(-1)[1] === n - 1) ranges.at(-1)[1] = n;
    else ranges.push([n, n]);
  }
  return ranges.map(([first, last]) => formatRange(first, last)).join(", ");
}

export class Reading {
  // onStep(index): another token is shown.
  constructor(onStep) {
    this.onStep = onStep;
    this.geometry = null;
    this.strip = new Strip(element("strip"), element("axis"), (block) => this.showBlock(block));
    this.history = new History(element("history"), element("here"), (index) => this.step(index));
    this.slider = element("token");
    this.slider.addEventListener("input", () => this.step(Number(this.slider.value)));
    element("earlier").addEventListener("click", () => this.step(this.index - 1));
    element("later").addEventListener("click", () => this.step(this.index + 1));
    element("layers").addEventListener("change", () => this.selectLayers(element("layers").value));
    element("planted-layer").addEventListener("click", (event) => {
      element("layers").value = event.target.dataset.layer;
      this.selectLayers(event.target.dataset.layer);
    });
    addEventListener("themechange", () => this.draw());
    this.layers = kAllLayers;
    this.reset(null);
  }

  // Of the served model; null: it reads everything.
  setGeometry(geometry) {
    this.geometry = geometry;
    element("reading").hidden = geometry === null;
    element("no-reading").hidden = geometry !== null;
    if (geometry === null) return;
    this.offerLayers(geometry);
  }

  // An option's value is its layers: "" all, "2-3" a range, "4" one.
  offerLayers(geometry) {
    const ranges = geometry.layerRanges().map(
      ([first, last]) => new Option(`Layers ${formatRange(first, last)}`, `${first}-${last}`));
    const each = Array.from({length: geometry.numLayers}, (_, layer) => new Option(`Layer ${layer}`, layer));
    element("layers").replaceChildren(new Option("All layers", ""), ...ranges, ...each);
    this.selectLayers("");
  }

  reset(run) {
    cancelAnimationFrame(this.pending);
    this.run = run;
    this.index = -1;
    this.following = true;
    this.texts = new Map();  // of blocks that are complete
    this.pending = 0;
    this.strip.clear();
    element("reading").classList.remove("has-trace");
    element("planted").hidden = true;
    element("legend-planted").hidden = true;
    this.showBlock(null);
  }

  selectLayers(value) {
    const [first, last = first] = value.split("-").map(Number);
    this.layers = value === "" ? kAllLayers : [first, last];
    this.draw();
  }

  // New entries are there. Drawn once per frame, however fast they come.
  grown() {
    if (this.pending) return;
    this.pending = requestAnimationFrame(() => {
      this.pending = 0;
      this.slider.max = this.run.entries.length - 1;
      if (this.following) this.show(this.run.entries.length - 1);
      else this.showSteps();
      this.showPlanted();
    });
  }

  step(index) {
    if (!this.run || index < 0 || index >= this.run.entries.length) return;
    this.following = index === this.run.entries.length - 1;
    this.show(index);
  }

  show(index) {
    this.index = index;
    element("reading").classList.add("has-trace");
    this.showSteps();
    this.draw();
    this.onStep(index);
  }

  showSteps() {
    const text = this.run.texts[this.index] ?? "";
    this.slider.value = this.index;
    this.slider.setAttribute("aria-valuetext", `token ${this.index + 1}: ${text}`);
    element("earlier").disabled = this.index <= 0;
    element("later").disabled = this.index + 1 >= this.run.entries.length;
    element("token-text").textContent = text.replace(/\n/g, "⏎") || "·";
    element("token-number").textContent =
      `${formatCount(this.index + 1)} of ${formatCount(this.run.entries.length)}`;
  }

  draw() {
    const entry = this.run?.entries[this.index];
    if (!entry) return;
    const chosen = chosenBlocks(entry, this.layers);
    const choosers = numChoosers(entry, this.layers);
    const geometry = this.geometry;
    const last = geometry.blockOf(entry.position);
    const looks = [];
    for (let block = 0; block <= geometry.blockOf(this.run.entries.at(-1).position); ++block) {
      looks.push({
        share: (chosen.get(block)?.length ?? 0) / choosers,
        chosen: chosen.has(block),
        seen: block <= last,
        row: geometry.rowPart(block, entry.position),
        window: geometry.windowPart(block, entry.position),
      });
    }
    this.strip.show(looks, geometry.blockTokens);
    this.history.show({run: this.run, index: this.index, layers: this.layers, numBlocks: looks.length,
                       columns: this.strip.columns});
    this.showSummary(entry, [...chosen.keys()].sort((a, b) => a - b), last + 1);
    this.showBytes(entry);
    this.showBlock(this.strip.inspected);
  }

  showSummary(entry, blocks, numBlocks) {
    const {geometry} = this;
    const rows = geometry.numRows(entry.position);
    const window = Math.min(geometry.windowTokens, entry.position + 1);
    element("summary").textContent =
      `${blocks.length} of ${formatCount(numBlocks)} blocks, the last ${formatCount(window)} tokens ` +
      `and ${formatCount(rows)} compressed rows, of ${formatCount(entry.position + 1)} tokens`;
    element("chosen-list").textContent = `Chosen blocks: ${formatRanges(blocks)}`;
  }

  showBytes(entry) {
    const show = (name, read, dense) => {
      element(`${name}-read`).textContent = formatBytes(read);
      element(`${name}-dense`).textContent = formatBytes(dense);
      element(`${name}-less`).textContent = formatLess(read, dense);
      element(`${name}-less`).classList.toggle("is-more", read > dense);
      element(`${name}-bar`).style.width = `${100 * read / dense}%`;
    };
    show("now", entry.kv_read_bytes, entry.kv_dense_bytes);
    show("total", ...this.run.bytes[this.index]);
  }

  // The needle demo's sentence: where it is, and which layer reads it.
  showPlanted() {
    const planted = this.run.planted;
    if (!planted) return;
    const first = this.geometry.blockOf(planted.first);
    const last = this.geometry.blockOf(planted.last);
    this.strip.markPlanted(first === last ? [first] : [first, last]);
    element("legend-planted").hidden = false;
    const [layer, count] = [...this.run.layersThatRead(first, last)].reduce((a, b) => b[1] > a[1] ? b : a);
    element("planted").hidden = false;
    element("planted-where").textContent =
      first === last ? `block ${first}` : `blocks ${first} and ${last}`;
    element("planted-how").textContent = `layer ${layer} chose it for ${count} of ${this.run.entries.length} tokens`;
    element("planted-layer").dataset.layer = layer;
    element("planted-layer").textContent = `Show layer ${layer}`;
    if (this.strip.inspected === null) this.strip.inspect(first);
  }

  async showBlock(block) {
    const entry = this.run?.entries[this.index];
    const where = element("block-where");
    const text = element("block-text");
    if (block === null || !entry) {
      where.textContent = "";
      text.textContent = "Point at a block to read it, or focus the strip and use the arrow keys.";
      text.classList.add("is-hint");
      return;
    }
    where.textContent = this.describeBlock(block, entry);
    this.strip.describe(where.textContent);
    let content;
    try {
      content = await this.textOf(block, entry.position);
    } catch (error) {
      content = error.message;
    }
    if (this.strip.inspected !== block || this.run?.entries[this.index] !== entry) return;
    this.fillText(text, content);
    this.strip.describe(`${where.textContent}: ${content}`);
  }

  describeBlock(block, entry) {
    const {geometry} = this;
    const first = block * geometry.blockTokens;
    const last = Math.min(first + geometry.blockTokens - 1, entry.position);
    if (last < first) return `Block ${block}: not there yet`;
    const by = chosenBlocks(entry, this.layers).get(block) ?? [];
    const layers = [...new Set(by.map(([layer]) => layer))];
    const parts = [`Block ${block}`, `tokens ${formatCount(first)} to ${formatCount(last)}`];
    if (layers.length === 0) parts.push("not chosen");
    else parts.push(`chosen by layer${layers.length > 1 ? "s" : ""} ${formatRanges(layers)}`);
    const [from, to] = geometry.windowPart(block, entry.position);
    if (from < to) parts.push("in the window");
    return parts.join(" · ");
  }

  async textOf(block, position) {
    const ids = this.run.idsOf(block, position, this.geometry.blockTokens);
    if (ids === null) return "The text of this context is not known.";
    if (ids.length === 0) return "";
    const complete = ids.length === this.geometry.blockTokens;
    if (complete && this.texts.has(block)) return this.texts.get(block);
    await new Promise((resolve) => setTimeout(resolve, kRestMs));
    if (this.strip.inspected !== block) return "";
    const {prompt} = await postJson("detokenize", {tokens: ids});
    if (complete) this.texts.set(block, prompt);
    return prompt;
  }

  fillText(target, content) {
    target.classList.remove("is-hint");
    const sentence = this.run.planted?.text;
    const at = sentence ? content.indexOf(sentence) : -1;
    if (at < 0) {
      target.textContent = content;
      return;
    }
    const mark = document.createElement("mark");
    mark.textContent = sentence;
    target.replaceChildren(content.slice(0, at), mark, content.slice(at + sentence.length));
  }
}
