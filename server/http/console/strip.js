// The strip: the whole context as one cell per selection block. Cells are plain elements whose
// looks are CSS; only those that change are touched, so that a thousand of them cost nothing.

import {formatCount} from "./trace.js";

const kNarrowest = 8;        // px of a cell, while all stand in one row
const kNarrowestWrapped = 10;
const kFewest = 24;          // cells that share the width, however few there are
const kRowMultiple = 16;     // of the cells of a row, once they wrap

export class Strip {
  // onInspect(block or null): another block is pointed at.
  constructor(root, axis, onInspect) {
    this.root = root;
    this.axis = axis;
    this.onInspect = onInspect;
    this.clear();
    root.addEventListener("pointerover", (event) => {
      if (event.target.dataset.block) this.inspect(Number(event.target.dataset.block));
    });
    root.addEventListener("click", (event) => {
      if (event.target.dataset.block) this.inspect(Number(event.target.dataset.block));
    });
    root.addEventListener("keydown", (event) => this.onKey(event));
    new ResizeObserver(() => this.layOut()).observe(root);
  }

  clear() {
    this.cells = [];
    this.looks = [];
    this.inspected = null;
    this.columns = 0;
    this.planted = [];
    this.root.replaceChildren();
    this.axis.replaceChildren();
    this.root.removeAttribute("aria-valuenow");
    this.root.removeAttribute("aria-valuetext");
  }

  // looks: per block {share 0..1, chosen, seen, row 0..1, window [from, to]}.
  show(looks, blockTokens) {
    this.blockTokens = blockTokens;
    const grown = looks.length > this.cells.length;
    while (this.cells.length < looks.length) {
      const cell = document.createElement("i");
      cell.dataset.block = this.cells.length;
      this.cells.push(cell);
      this.root.append(cell);
    }
    if (grown) this.layOut();
    looks.forEach((look, block) => this.showCell(block, look));
    this.root.setAttribute("aria-valuemax", this.cells.length - 1);
  }

  showCell(block, look) {
    const text = JSON.stringify(look);
    if (this.looks[block] === text) return;
    this.looks[block] = text;
    const cell = this.cells[block];
    cell.classList.toggle("chosen", look.chosen);
    cell.classList.toggle("unseen", !look.seen);
    cell.classList.toggle("in-window", look.window[0] < look.window[1]);
    cell.style.setProperty("--share", `${look.chosen ? 25 + 75 * look.share : 0}%`);
    cell.style.setProperty("--row-part", `${100 * look.row}%`);
    cell.style.setProperty("--window-from", `${100 * look.window[0]}%`);
    cell.style.setProperty("--window-to", `${100 * look.window[1]}%`);
  }

  // Marks blocks from elsewhere: where the needle demo planted its sentence.
  markPlanted(blocks) {
    this.planted.forEach((block) => this.cells[block]?.classList.remove("planted"));
    this.planted = blocks;
    blocks.forEach((block) => this.cells[block]?.classList.add("planted"));
  }

  inspect(block) {
    this.cells[this.inspected]?.classList.remove("inspected");
    this.inspected = block;
    this.cells[block]?.classList.add("inspected");
    if (block !== null) this.root.setAttribute("aria-valuenow", block);
    this.onInspect(block);
  }

  // What a screen reader says of the inspected block.
  describe(text) {
    this.root.setAttribute("aria-valuetext", text);
  }

  layOut() {
    const count = this.cells.length;
    const width = this.root.clientWidth;
    if (count === 0 || width === 0) return;
    const oneRow = count * kNarrowest <= width;
    const fitting = Math.floor(width / kNarrowestWrapped);
    this.columns = oneRow ? Math.max(count, kFewest)
      : Math.max(kRowMultiple, fitting - fitting % kRowMultiple);
    const rows = Math.ceil(count / this.columns);
    this.root.style.setProperty("--columns", this.columns);
    this.root.style.setProperty("--height", `${rows === 1 ? 64 : rows <= 5 ? 36 : 20}px`);
    this.root.style.setProperty("--bar", rows <= 5 ? "3px" : "2px");
    this.drawAxis(rows, width);
  }

  drawAxis(rows, width) {
    this.axis.replaceChildren();
    const label = (text, left) => {
      const tick = document.createElement("span");
      tick.textContent = text;
      if (left !== undefined) tick.style.left = `${left}%`;
      this.axis.append(tick);
    };
    this.axis.classList.toggle("is-text", rows > 1);
    if (rows > 1) {
      label(`${formatCount(rows)} rows of ${this.columns} blocks, ` +
            `${formatCount(this.columns * this.blockTokens)} tokens each`);
      return;
    }
    const wanted = Math.max(1, Math.round(width / 110));  // labels that fit
    let step = 1;
    while (this.cells.length / step > wanted) step *= 2;
    for (let block = 0; block < this.cells.length; block += step) {
      label(formatCount(block * this.blockTokens), 100 * block / this.columns);
    }
  }

  onKey(event) {
    const last = this.cells.length - 1;
    if (last < 0) return;
    const at = this.inspected;
    const chosen = (step) => {
      let block = (at ?? (step > 0 ? -1 : last + 1)) + step;
      while (block >= 0 && block <= last && !this.cells[block].classList.contains("chosen")) block += step;
      return block >= 0 && block <= last ? block : at;
    };
    const targets = {
      ArrowLeft: () => (at ?? 1) - 1,
      ArrowRight: () => (at ?? -1) + 1,
      ArrowUp: () => (at ?? 0) - this.columns,
      ArrowDown: () => (at ?? 0) + this.columns,
      PageUp: () => chosen(-1),
      PageDown: () => chosen(+1),
      Home: () => 0,
      End: () => last,
    };
    if (!targets[event.key]) return;
    event.preventDefault();
    const target = targets[event.key]();
    if (target !== null && target >= 0 && target <= last) this.inspect(target);
  }
}
