"use strict";
// Saliency maps: one canvas per map, and the choice of the prompt.
(() => {
  const { read, css, showTip, hideTip, onPaint } = ShiftLens;
  const data = read("data-maps");
  const CELL = 16, LABELS = 104, BARS = 46, HEAD = 84, OVERHANG = 36;
  const grids = [];

  // Spaces and line breaks made visible, so that every token can be seen.
  const shown = (token) => token.replace(/\n/g, "↵").replace(/\t/g, "⇥").trim() || "␣";
  const cut = (context, text, width) => {
    if (context.measureText(text).width <= width) return text;
    const letters = Array.from(text);
    while (letters.length && context.measureText(letters.join("") + "…").width > width) letters.pop();
    return letters.join("") + "…";
  };

  // One canvas the size of the box, drawn anew for each scroll position: a map of 500 by 300 tokens
  // costs as much as a small one. Token labels, bars and column heads stay in view.
  class Grid {
    constructor(box) {
      this.box = box;
      this.map = data.maps[+box.dataset.map];
      const bytes = atob(this.map.score);
      this.score = Uint8Array.from(bytes, (c) => c.charCodeAt(0));
      // A shift map has signed bytes: orange where tuned is above base, blue below.
      this.signed = this.map.role === "shift";
      if (this.signed) this.score = new Int8Array(this.score.buffer);
      // Columns share the box's width if they fit; otherwise the box scrolls.
      const room = (box.clientWidth - LABELS - BARS - OVERHANG) / this.map.columns.length;
      this.step = Math.max(14, Math.min(22, Math.floor(room)));
      this.width = LABELS + BARS + this.step * this.map.columns.length + OVERHANG;
      this.height = HEAD + CELL * this.map.rows.length + 2;
      this.canvas = document.createElement("canvas");
      this.canvas.setAttribute("aria-hidden", "true");
      const space = document.createElement("div");
      space.style.cssText = `width:${this.width}px;height:${this.height}px`;
      space.append(this.canvas);
      box.append(space);
      box.addEventListener("scroll", () => requestAnimationFrame(() => this.draw()));
      box.addEventListener("pointermove", (event) => this.point(event));
      box.addEventListener("pointerleave", () => { hideTip(); this.at = null; this.draw(); });
      new ResizeObserver(() => this.draw()).observe(box);
    }

    draw() {
      const { box, canvas, map, step } = this;
      const w = Math.min(box.clientWidth, this.width), h = Math.min(box.clientHeight, this.height);
      if (!w || !h) return;
      const ratio = devicePixelRatio || 1;
      canvas.width = w * ratio;
      canvas.height = h * ratio;
      canvas.style.width = w + "px";
      canvas.style.height = h + "px";
      const c = canvas.getContext("2d");
      c.scale(ratio, ratio);
      c.textBaseline = "middle";
      const font = getComputedStyle(document.body).fontFamily;
      const ink = css("--ink"), quiet = css("--quiet"), rule = css("--rule"), hover = css("--hover");
      const up = css("--tuned"), down = css("--base"), color = this.signed ? ink : css(`--${map.role}`);
      const left = LABELS + BARS;
      const x0 = left - box.scrollLeft, y0 = HEAD - box.scrollTop;
      const cols = map.columns.length, rows = map.rows.length;
      const c0 = Math.max(0, Math.floor(box.scrollLeft / step)), c1 = Math.min(cols, Math.ceil((w - x0) / step));
      const r0 = Math.max(0, Math.floor(box.scrollTop / CELL)), r1 = Math.min(rows, Math.ceil((h - y0) / CELL));
      const area = (x, y, width, height, paint) => {
        c.save();
        c.beginPath();
        c.rect(x, y, width, height);
        c.clip();
        paint();
        c.restore();
      };

      area(left, HEAD, w - left, h - HEAD, () => {
        for (let r = r0; r < r1; r++) for (let k = c0; k < c1; k++) {
          const s = this.score[r * cols + k];
          c.globalAlpha = 1;
          c.fillStyle = hover;
          c.fillRect(x0 + k * step, y0 + r * CELL, step - 1, CELL - 1);
          if (!s) continue;
          c.globalAlpha = this.signed ? Math.abs(s) / 127 : 0.12 + 0.88 * Math.min(1, s / data.levels);
          c.fillStyle = this.signed ? (s > 0 ? up : down) : color;
          c.fillRect(x0 + k * step, y0 + r * CELL, step - 1, CELL - 1);
        }
        c.globalAlpha = 1;
        if (this.at && this.at.k >= 0 && this.at.r >= 0) {
          c.strokeStyle = ink;
          c.lineWidth = 1.5;
          c.strokeRect(x0 + this.at.k * step - 0.5, y0 + this.at.r * CELL - 0.5, step, CELL);
        }
      });

      area(0, HEAD, left, h - HEAD, () => {
        c.font = `12px ${font}`;
        for (let r = r0; r < r1; r++) {
          const y = y0 + r * CELL;
          c.fillStyle = css(`--${data.regions[map.regions[r]]}`);
          c.fillRect(0, y, 4, CELL - 1);
          c.fillStyle = this.at && this.at.r === r ? color : ink;
          c.fillText(cut(c, shown(map.rows[r]), LABELS - 14), 9, y + CELL / 2);
          c.fillStyle = rule;
          c.fillRect(LABELS, y + 3, BARS - 8, CELL - 7);
          c.fillStyle = this.signed ? (map.density[r] > 0 ? up : down) : color;
          c.fillRect(LABELS, y + 3, (BARS - 8) * Math.abs(map.density[r]), CELL - 7);
        }
      });

      area(left, 0, w - left, HEAD, () => {
        c.font = `${step < 16 ? 11 : 12}px ${font}`;
        for (let k = c0 - 4; k < c1; k++) {
          if (k < 0) continue;
          c.save();
          c.translate(x0 + k * step + step / 2 - 1, HEAD - 5);
          c.rotate(-Math.PI / 3);
          c.fillStyle = this.at && this.at.k === k ? color : ink;
          c.fillText(cut(c, shown(map.columns[k]), HEAD - 2), 0, 0);
          c.restore();
        }
      });
      c.font = `11px ${font}`;
      c.fillStyle = quiet;
      c.fillText("prompt", 9, HEAD - 9);
      c.fillText(this.signed ? "net" : "density", LABELS, HEAD - 9);
    }

    point(event) {
      const { box, map } = this;
      const frame = box.getBoundingClientRect();
      const x = event.clientX - frame.left, y = event.clientY - frame.top;
      const cols = map.columns.length, rows = map.rows.length;
      let r = y < HEAD ? -1 : Math.floor((y + box.scrollTop - HEAD) / CELL);
      let k = x < LABELS + BARS ? -1 : Math.floor((x + box.scrollLeft - LABELS - BARS) / this.step);
      if (r >= rows) r = -1;
      if (k >= cols) k = -1;
      this.at = { r, k };
      const signed = (value) => `${value > 0 ? "+" : ""}${+value.toPrecision(2)} ${map.unit}`;
      const weight = r < 0 ? "" : this.signed ? `net ${signed(map.net[r])}` : `density ${map.density[r].toFixed(2)}`;
      const row = r < 0 ? "" : `${shown(map.rows[r])} (${data.regions[map.regions[r]]}, ${weight})`;
      const column = k < 0 ? "" : shown(map.columns[k]);
      const s = this.score[r * cols + k];
      const value = this.signed ? signed(Math.sign(s) * (s / 127) ** 2 * map.most) : `S = ${s} of ${data.levels}`;
      if (row && column) showTip(`${row} → ${column}\n${value}`, event.clientX, event.clientY);
      else if (row && x < LABELS + BARS) showTip(row, event.clientX, event.clientY);
      else if (column && y < HEAD) showTip(column, event.clientX, event.clientY);
      else hideTip();
      this.draw();
    }
  }

  for (const box of document.querySelectorAll(".grid")) grids.push(new Grid(box));

  const pick = document.getElementById("pick");
  const prompts = Array.from(document.querySelectorAll(".prompt"));
  const show = (chosen) => {
    prompts.forEach((prompt, i) => { prompt.hidden = i !== chosen; });
    grids.forEach((grid) => grid.draw());
  };
  if (pick) {
    pick.closest("p").hidden = false;
    pick.addEventListener("change", () => show(+pick.value));
    show(+pick.value);
  }

  onPaint(() => grids.forEach((grid) => grid.draw()));
  addEventListener("beforeprint", () => grids.forEach((grid) => grid.draw()));
})();
