"use strict";
/*
 * Plotly with our colours and without its tool bar. Each plot has a sentence for readers who do not see it, and a table
 * of its numbers. Besides hovering, everything a plot can do is a control of the page, so that a keyboard can do it.
 */
const Charts = (() => {
  const { el, fillTable, byId } = Dom;
  const DASHES = ["solid", "dash", "dot", "dashdot"];
  const COLOURS = 8;
  const SEE_TABLE = "All numbers are in the table below.";
  const drawn = new Map();

  /** The value of a colour of page.css under the current theme. */
  function colour(name, alpha = 1) {
    const probe = byId("probe") || document.body.appendChild(el("span", { id: "probe", hidden: true }));
    probe.style.color = `var(--${name})`;
    const parts = getComputedStyle(probe)
      .color.match(/[\d.]+/g)
      .slice(0, 3)
      .map(Number);
    return `rgba(${parts.join(",")},${alpha})`;
  }

  /** The style of the i-th line: eight colours that the colour-blind can distinguish, then again with other dashes. */
  const style = (i) => ({ colour: `line-${i % COLOURS}`, dash: DASHES[Math.floor(i / COLOURS) % DASHES.length] });

  /** Escape a label. Plotly interprets some markup, and TeX between dollars, which texts from logs may contain. */
  const label = (value) =>
    Dom.text(value).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;").replace(/\$/g, "&#36;");

  function axis(extra = {}) {
    return {
      gridcolor: colour("line"),
      zerolinecolor: colour("muted", 0.6),
      linecolor: colour("line"),
      automargin: true,
      fixedrange: true,
      tickfont: { color: colour("muted") },
      ...extra,
      title: { font: { color: colour("muted"), size: 13 }, standoff: 12, ...extra.title },
    };
  }

  function layout(extra) {
    const font = getComputedStyle(document.body);
    return {
      margin: { l: 48, r: 16, t: 12, b: 44 },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      showlegend: false,
      dragmode: false,
      font: { family: font.fontFamily, size: 13, color: colour("text") },
      hoverlabel: {
        bgcolor: colour("surface"),
        bordercolor: colour("line"),
        font: { color: colour("text"), size: 13 },
        align: "left",
        namelength: 40,
      },
      ...extra,
    };
  }

  /** Draw a plot, and remember it so that it can be redrawn in another theme. make() -> {traces, layout}. */
  function draw(id, description, make) {
    drawn.set(id, { description, make });
    const node = byId(id);
    const { traces, layout: own } = make();
    node.setAttribute("role", "img");
    node.setAttribute("aria-label", description);
    node.style.height = `${own.height}px`;
    return Plotly.react(node, traces, layout(own), {
      displayModeBar: false,
      responsive: true,
      doubleClick: false,
      showTips: false,
    });
  }

  function forget(id) {
    if (drawn.delete(id)) Plotly.purge(byId(id));
  }

  const redraw = () => drawn.forEach(({ description, make }, id) => draw(id, description, make));

  /** Fill the table of a plot when the reader opens it. make() -> [heads, rows]. */
  function table(id, caption, make) {
    const details = byId(id);
    const fill = () => {
      if (!details.open) return;
      const box =
        details.querySelector("div") ||
        details.appendChild(el("div", { class: "wide tall", role: "region", tabindex: "0" }));
      box.setAttribute("aria-label", `${caption}, as a table`);
      box.replaceChildren(fillTable(el("table"), caption, ...make()));
    };
    details.ontoggle = fill;
    fill();
  }

  /** A short sample of the i-th line, for the legends of the page. */
  function swatch(i) {
    const dashes = { solid: "", dash: "7 4", dot: "2 3", dashdot: "7 3 2 3" };
    const { colour: name, dash } = style(i);
    return Dom.svg(
      "svg",
      { width: 28, height: 10, "aria-hidden": "true", class: "swatch" },
      Dom.svg("line", {
        x1: 1,
        x2: 27,
        y1: 5,
        y2: 5,
        style: `stroke: var(--${name})`,
        "stroke-dasharray": dashes[dash],
      }),
    );
  }

  const scale = (...names) => names.map((name, i) => [i / (names.length - 1), colour(name)]);

  return { SEE_TABLE, axis, colour, draw, forget, label, redraw, scale, style, swatch, table };
})();
