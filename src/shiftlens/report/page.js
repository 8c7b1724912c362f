"use strict";
// What every section of the page uses. A section's own script takes these from ShiftLens and registers with onPaint
// what is to be drawn once the page is there, and again when the theme changes.
const ShiftLens = (() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const colors = read("data-colors");

  const tip = document.createElement("div");
  tip.id = "tip";
  tip.hidden = true;
  document.body.append(tip);
  const showTip = (text, x, y) => {
    tip.textContent = text;
    tip.hidden = false;
    tip.style.left = Math.min(x + 14, innerWidth - tip.offsetWidth - 8) + "px";
    tip.style.top = Math.min(y + 16, innerHeight - tip.offsetHeight - 8) + "px";
  };
  const hideTip = () => { tip.hidden = true; };

  const PLOT = { responsive: true, displaylogo: false, displayModeBar: false };
  const themed = (layout) => {
    const rule = css("--rule");
    delete layout.template;
    layout.paper_bgcolor = layout.plot_bgcolor = "rgba(0,0,0,0)";
    layout.font = { color: css("--ink"), size: 13, family: getComputedStyle(document.body).fontFamily };
    for (const key of Object.keys(layout).filter((key) => /^[xy]axis/.test(key)))
      Object.assign(layout[key], { gridcolor: rule, linecolor: rule, zerolinecolor: rule, automargin: true });
    return layout;
  };

  // Figures carry the colours of a light page; each has a name under which the page has it, light or dark.
  const repaint = (value) => {
    if (typeof value === "string") return colors[value] ? css(colors[value]) : value;
    if (Array.isArray(value)) return value.map(repaint);
    return value;
  };
  const recolor = (part) => {
    for (const [key, value] of Object.entries(part)) {
      if (/color(scale)?$/.test(key)) part[key] = repaint(value);
      else if (value && typeof value === "object" && !Array.isArray(value)) recolor(value);
    }
  };

  const drawFigure = (target, figure) => {
    figure.data.forEach(recolor);
    // Room kept from the start: the page must not jump when the theme changes.
    if (figure.layout.height) target.style.minHeight = `${figure.layout.height + 18}px`;
    Plotly.react(target, figure.data, themed(figure.layout), PLOT);
    target.classList.add("drawn");
  };

  // A section's html says where a figure is drawn; a figure without a place is drawn where its data stand.
  const drawFigures = () => {
    for (const block of document.querySelectorAll(".figure-data")) {
      const id = block.id.replace("data-", "figure-");
      let target = document.getElementById(id);
      if (!target) {
        target = document.createElement("div");
        target.id = id;
        target.className = "figure";
        target.setAttribute("role", "img");
        target.setAttribute("aria-label", block.dataset.label);
        block.before(target);
      }
      drawFigure(target, JSON.parse(block.textContent));
    }
  };

  const painters = [drawFigures];
  const onPaint = (painter) => { painters.push(painter); };
  const paint = () => painters.forEach((painter) => painter());
  addEventListener("DOMContentLoaded", paint);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
  return { read, css, showTip, hideTip, drawFigure, onPaint };
})();
