"use strict";
// Browse layer, concept, words.
(() => {
  const { read } = ShiftLens;

  const element = (name, className, ...children) => {
    const made = document.createElement(name);
    if (className) made.className = className;
    made.append(...children);
    return made;
  };

  // Browse layer, concept, words. Rows are made as they are asked for: a layer has up to 18,000 words.
  class Browser {
    constructor(box) {
      this.data = read("data-concepts");
      this.layers = this.data.layers.map((packed) => this.unpack(packed));
      this.find = document.getElementById("concept-find");
      this.layer = document.getElementById("concept-layer");
      this.order = document.getElementById("concept-order");
      this.rows = document.getElementById("concept-rows");
      this.more = document.getElementById("concept-more");
      this.layers.forEach((layer, i) => {
        const mean = layer.cosine ? ` · mean |cosine| ${(layer.cosine.reduce((a, b) => a + b, 0) / layer.cosine.length).toFixed(3)}` : "";
        this.layer.append(new Option(`${layer.layer}${mean}`, i));
      });
      for (const control of [this.layer, this.order]) control?.addEventListener("change", () => this.list());
      this.find.addEventListener("input", () => this.list());
      this.more.addEventListener("click", () => this.show());
      box.hidden = false;
      this.list();
    }

    unpack(packed) {
      const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
      const role = (part) => {
        const view = new DataView(bytes(part.words).buffer), size = this.data.word_bytes;
        const words = Array.from({ length: view.byteLength / size }, (_, i) =>
          size === 2 ? view.getUint16(i * 2, true) : view.getUint32(i * 4, true));
        return { ...part, words, marks: bytes(part.marks) };
      };
      return { ...packed, base: role(packed.base), tuned: role(packed.tuned) };
    }

    // A row is a base concept and the place of its match among the tuned ones.
    pairsOf(layer) {
      const count = Math.max(layer.base.ratio.length, layer.match ? 0 : layer.tuned.ratio.length);
      return Array.from({ length: count }, (_, base) => ({ base, tuned: layer.match ? layer.match[base] : base }));
    }

    has(part, place, hits) {
      const { top } = this.data;
      if (place >= part.ratio.length) return false;
      if (hits.has(part.description[place])) return true;
      for (let i = place * top; i < (place + 1) * top; i++) if (hits.has(part.words[i])) return true;
      return false;
    }

    list() {
      const layer = this.layers[+this.layer.value], asked = this.find.value.trim().toLowerCase();
      const hits = new Set();
      if (asked) this.data.strings.forEach((text, i) => { if (i && text.toLowerCase().includes(asked)) hits.add(i); });
      const found = (other) => this.pairsOf(other).filter((row) =>
        !asked || this.has(other.base, row.base, hits) || this.has(other.tuned, row.tuned, hits));
      this.hits = hits;
      this.found = found(layer);
      if (this.order?.value === "change") this.found.sort((a, b) => layer.cosine[a.base] - layer.cosine[b.base]);
      const count = this.pairsOf(layer).length;
      document.getElementById("concept-status").textContent = asked
        ? `${this.found.length} of ${count} concepts of layer ${layer.layer} have “${this.find.value.trim()}”.`
        : `${count} concepts of layer ${layer.layer}.`;
      const elsewhere = document.getElementById("concept-elsewhere");
      elsewhere.replaceChildren();
      if (asked) {
        const others = this.layers.map((other, i) => [other, i, other === layer ? 0 : found(other).length]).filter(([, , n]) => n);
        if (others.length) elsewhere.append("Also in ");
        for (const [other, i, n] of others) {
          const button = element("button", "", `layer ${other.layer} (${n})`);
          button.type = "button";
          button.addEventListener("click", () => { this.layer.value = i; this.list(); this.layer.focus(); });
          elsewhere.append(button, " ");
        }
      }
      this.rows.replaceChildren();
      document.getElementById("concept-box").scrollTop = 0;
      this.show();
    }

    show() {
      const layer = this.layers[+this.layer.value], from = this.rows.children.length;
      this.rows.append(...this.found.slice(from, from + 20).map((row) => this.row(layer, row)));
      const rest = this.found.length - this.rows.children.length;
      this.more.hidden = rest <= 0;
      this.more.textContent = `Show ${Math.min(20, rest)} more of ${rest}`;
    }

    row(layer, { base, tuned }) {
      const percent = (part, place) => (place < part.ratio.length ? `${(100 * part.ratio[place]).toPrecision(2)} %` : "");
      const head = element("th", "", `${base}`);
      head.scope = "row";
      if (tuned !== base) head.append(element("span", "line quiet", `tuned: ${tuned}`));
      head.append(element("span", "line quiet", percent(layer.base, base) || percent(layer.tuned, tuned)));
      const cells = [head, this.cell(layer.base, base, "del")];
      if (layer.match) {
        const bar = element("span", "bar", element("i", ""));
        bar.firstChild.style.width = `${100 * layer.cosine[base]}%`;
        cells.push(element("td", "r", layer.cosine[base].toFixed(3), bar));
      }
      return element("tr", "", ...cells, this.cell(layer.tuned, tuned, "ins"));
    }

    cell(part, place, mark) {
      const { strings, top, levels, tasks, annotated } = this.data;
      if (place >= part.ratio.length) return element("td", "quiet", `Concept ${place} is not among those kept here.`);
      const cell = element("td", "");
      if (annotated) {
        const described = strings[part.description[place]];
        const line = element("p", described ? "told" : "told quiet", described || strings[part.note[place]] || "cannot be described");
        if (part.level[place]) line.append(" ", element("span", "tag", levels[part.level[place] - 1]));
        const task = part.task[place] && tasks[part.task[place] - 1];
        if (task && task !== "none") line.append(" ", element("span", "tag", task));
        cell.append(line);
      }
      const list = element("p", "words");
      for (let j = 0; j < top; j++) {
        const at = place * top + j, word = part.words[at];
        if (!word) break;
        const only = part.marks[at >> 3] & (128 >> (at & 7));
        const shownWord = element(only ? mark : "span", this.hits.has(word) ? "hit" : "", strings[word]);
        list.append(shownWord, " ");
      }
      cell.append(list);
      return cell;
    }
  }
  const browserBox = document.getElementById("concepts");
  if (browserBox) new Browser(browserBox);
})();
