// What a token read, as the nsa_trace of a stream tells it: pure functions, and the record of one
// run. Words are those of docs/nsa.md: block, window, row, span.

// model.nsa of GET /v1/models.
export class Geometry {
  constructor(nsa) {
    this.numLayers = nsa.num_layers;
    this.numHeads = nsa.num_kv_heads;
    this.blockTokens = nsa.block_tokens;
    this.windowTokens = nsa.window_tokens;
    this.numSelected = nsa.num_selected_blocks;
    this.spanTokens = nsa.span_tokens;
    this.spanStride = nsa.span_stride;
  }

  // Quarters of the layers, as [first, last]; 5 to 8 layers go in pairs, fewer make no ranges.
  layerRanges() {
    const perRange = Math.ceil(this.numLayers / 4);
    const ranges = [];
    for (let first = 0; first < this.numLayers; first += perRange) {
      ranges.push([first, Math.min(first + perRange, this.numLayers) - 1]);
    }
    return ranges.filter(([first, last]) => first < last);
  }

  blockOf(position) {
    return Math.floor(position / this.blockTokens);
  }

  // Part of the block's tokens that the window of the query at `position` covers: [from, to) in 0..1.
  windowPart(block, position) {
    const first = block * this.blockTokens;
    const from = Math.max(position - this.windowTokens + 1, 0, first);
    const to = Math.min(position + 1, first + this.blockTokens);
    return from < to ? [(from - first) / this.blockTokens, (to - first) / this.blockTokens] : [0, 0];
  }

  // Rows whose span has ended at or before `position`.
  numRows(position) {
    return Math.max(0, Math.floor((position + 1 - this.spanTokens) / this.spanStride) + 1);
  }

  // Those of them that end in the block: as a share of what a full block has.
  rowPart(block, position) {
    const first = block * this.blockTokens;
    const last = Math.min(position, first + this.blockTokens - 1);
    if (last < first) return 0;
    return (this.numRows(last) - this.numRows(first - 1)) * this.spanStride / this.blockTokens;
  }
}

export const kAllLayers = [0, Infinity];

// What layers [first, last] chose.
export function choicesOf(entry, [first, last]) {
  return entry.layers.filter(({layer}) => first <= layer && layer <= last);
}

// Which (layer, head) pairs of `layers` chose each block: block -> [[layer, head], ...].
export function chosenBlocks(entry, layers) {
  const chosen = new Map();
  for (const {layer, blocks} of choicesOf(entry, layers)) {
    blocks.forEach((list, head) => {
      for (const block of list) {
        if (!chosen.has(block)) chosen.set(block, []);
        chosen.get(block).push([layer, head]);
      }
    });
  }
  return chosen;
}

// How many (layer, head) pairs of `layers` could have chosen a block.
export function numChoosers(entry, layers) {
  return choicesOf(entry, layers).reduce((sum, {blocks}) => sum + blocks.length, 0);
}

// One answer: the context's token ids, and an entry per generated token.
export class Run {
  constructor(promptIds) {
    this.ids = promptIds;   // null: not known
    this.entries = [];
    this.texts = [];        // per entry: what the answer showed with it
    this.bytes = [];        // per entry: [read, dense] up to it
    this.planted = null;    // {text, first, last}: tokens of the sentence of the needle demo
  }

  add(entry, text) {
    const [read, dense] = this.bytes.at(-1) ?? [0, 0];
    this.entries.push(entry);
    this.texts.push(text);
    this.bytes.push([read + entry.kv_read_bytes, dense + entry.kv_dense_bytes]);
    if (this.ids?.length === entry.position + 1) this.ids.push(entry.token_id);
    else this.ids = null;
  }

  // The ids of a block as far as the query at `position` sees them; null: not known.
  idsOf(block, position, blockTokens) {
    return this.ids?.slice(block * blockTokens, Math.min((block + 1) * blockTokens, position + 1)) ?? null;
  }

  // Per layer: in how many tokens of the answer it chose a block of the planted sentence.
  layersThatRead(firstBlock, lastBlock) {
    const counts = new Map();
    for (const entry of this.entries) {
      for (const {layer, blocks} of entry.layers) {
        const reads = blocks.some((list) => list.some((b) => b >= firstBlock && b <= lastBlock));
        counts.set(layer, (counts.get(layer) ?? 0) + (reads ? 1 : 0));
      }
    }
    return counts;
  }
}

export function formatBytes(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  for (; bytes >= 1024 && unit + 1 < units.length; ++unit) bytes /= 1024;
  return `${bytes.toFixed(unit === 0 || bytes >= 100 ? 0 : bytes >= 10 ? 1 : 2)} ${units[unit]}`;
}

// How much less was read than full attention reads; in a short context it is more.
export function formatLess(read, dense) {
  return read <= dense ? `${(dense / read).toFixed(1)}× less` : `${(read / dense).toFixed(1)}× more`;
}

export function formatCount(count) {
  return count.toLocaleString("en-US");
}
