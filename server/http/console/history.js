// The tokens of the answer so far, one line each, over the same blocks as the strip: what keeps
// being read shows as a column.

import {choicesOf, numChoosers} from "./trace.js";

const kMaxLines = 120;
const kHeight = 120;      // px of all lines
const kMaxLineHeight = 6; // px of one

export class History {
  // onStep(index): a line was clicked.
  constructor(canvas, here, onStep) {
    this.canvas = canvas;
    this.here = here;
    canvas.addEventListener("click", (event) => {
      const line = Math.floor(event.offsetY / this.lineHeight);
      if (line < this.numLines) onStep(this.top + line);
    });
  }

  // The lines around `index`; `columns`: cells over the strip's width.
  show({run, index, layers, numBlocks, columns}) {
    const total = run.entries.length;
    this.numLines = Math.min(total, kMaxLines);
    this.top = Math.max(0, Math.min(total - this.numLines, index - this.numLines + 1));
    this.lineHeight = Math.max(1, Math.min(kMaxLineHeight, Math.floor(kHeight / this.numLines)));
    this.canvas.width = numBlocks;
    this.canvas.height = this.numLines;
    this.canvas.style.width = `${100 * Math.min(1, numBlocks / columns)}%`;
    this.canvas.style.height = `${this.numLines * this.lineHeight}px`;
    this.here.style.top = `${(index - this.top) * this.lineHeight}px`;
    this.here.style.height = `${this.lineHeight}px`;
    this.paint(run, layers, numBlocks);
  }

  paint(run, layers, numBlocks) {
    const context = this.canvas.getContext("2d");
    const image = context.createImageData(numBlocks, this.numLines);
    const [red, green, blue] = getComputedStyle(this.canvas).color.match(/\d+/g).map(Number);
    for (let line = 0; line < this.numLines; ++line) {
      const entry = run.entries[this.top + line];
      const choosers = numChoosers(entry, layers);
      countChoices(entry, layers, numBlocks).forEach((count, block) => {
        if (count === 0) return;
        const alpha = Math.round(255 * (0.25 + 0.75 * count / choosers));
        image.data.set([red, green, blue, alpha], 4 * (line * numBlocks + block));
      });
    }
    context.putImageData(image, 0, 0);
  }
}

// By how many (layer, head) pairs each block was chosen.
function countChoices(entry, layers, numBlocks) {
  const counts = new Uint16Array(numBlocks);
  for (const {blocks} of choicesOf(entry, layers)) {
    for (const list of blocks) for (const block of list) ++counts[block];
  }
  return counts;
}
