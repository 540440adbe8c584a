"use strict";
/* Runs by method: the mean of each method's seeds over the steps, a band of their spread, and a table of tests. */
const ComparisonView = (() => {
  const { byId, el, field, isNumber, list, number, plural, record, text } = Dom;
  let comparison = {};
  let channel = null;

  const groups = () => Object.keys(record(comparison.groups));
  const curve = (group) => record(field(record(record(comparison.groups)[group]).curves, channel));
  const channels = () => [
    ...new Set(groups().flatMap((group) => Object.keys(record(record(record(comparison.groups)[group]).curves)))),
  ];
  const runsOf = (group) => list(record(comparison.groups[group]).runs).length;

  function band(group, i) {
    const { steps, low, high } = curve(group);
    const at = list(steps)
      .map((_, t) => t)
      .filter((t) => isNumber(list(low)[t]) && isNumber(list(high)[t]));
    const back = [...at].reverse();
    return {
      x: [...at, ...back].map((t) => steps[t]),
      y: [...at.map((t) => high[t]), ...back.map((t) => low[t])],
      fill: "toself",
      fillcolor: Charts.colour(Charts.style(i).colour, 0.16),
      line: { width: 0 },
      mode: "lines",
      hoverinfo: "skip",
    };
  }

  function line(group, i) {
    const { colour, dash } = Charts.style(i);
    const x = list(curve(group).steps);
    return {
      x,
      y: list(curve(group).mean),
      name: Charts.label(Dom.short(group)),
      mode: x.length <= 40 ? "lines+markers" : "lines",
      line: { color: Charts.colour(colour), dash, width: 2.5 },
      marker: { size: 5 },
      hovertemplate: "%{y:.3f}",
    };
  }

  function describe() {
    const ends = groups().flatMap((group) => {
      const seen = list(curve(group).mean).filter(isNumber);
      return seen.length ? [`${group} ends at ${number(seen[seen.length - 1])}`] : [];
    });
    const what = `Mean of ${channel} over the steps by method, with the spread of the runs.`;
    return `${what} ${ends.join("; ")}. ${Charts.SEE_TABLE}`;
  }

  function rows() {
    return groups().flatMap((group) => {
      const { steps, mean, low, high } = curve(group);
      return list(steps).map((step, t) => [
        group,
        text(step),
        ...[mean, low, high].map((values) => number(list(values)[t], 3)),
      ]);
    });
  }

  function plot() {
    Charts.draw("comparison-plot", describe(), () => ({
      traces: [...groups().map(band), ...groups().map(line)],
      layout: {
        height: 360,
        hovermode: "x unified",
        xaxis: Charts.axis({ title: { text: "Step" }, zeroline: false }),
        yaxis: Charts.axis({ title: { text: "Mean of the runs" }, zeroline: false }),
      },
    }));
    Charts.table("comparison-data", "Curves by method", () => [["Method", "Step", "Mean", "Low", "High"], rows()]);
  }

  function key() {
    byId("comparison-key").replaceChildren(
      ...groups().map((group, i) =>
        el(
          "li",
          {},
          Charts.swatch(i),
          el("span", {}, group),
          el(
            "span",
            { class: "muted" },
            ` ${plural(runsOf(group), "run")}${group === comparison.baseline ? ", the baseline" : ""}`,
          ),
        ),
      ),
    );
  }

  function results() {
    const { head, rows: body } = record(comparison.table);
    const filled = list(head).length && list(body).length;
    byId("comparison-table").hidden = !filled;
    byId("comparison-table").replaceChildren(
      ...(filled
        ? [
            Dom.fillTable(
              el("table"),
              "Results by method",
              list(head).map(text),
              list(body).map((row) => list(row).map(text)),
            ),
          ]
        : []),
    );
    Dom.notes(byId("comparison-notes"), comparison.notes);
  }

  function render(data) {
    comparison = record(data);
    if (!Dom.show("comparison", groups().length > 0)) return Charts.forget("comparison-plot");
    const offered = channels();
    const first = channel ?? offered[0];
    channel = Dom.fillSelect(
      byId("comparison-channel"),
      offered.map((name) => [name, name]),
      first,
    );
    byId("comparison-channel").onchange = (event) => {
      channel = event.target.value;
      plot();
    };
    byId("comparison-lead").textContent =
      "Lines show the mean of each method's runs; bands reach from the lowest run to the highest.";
    key();
    results();
    byId("comparison-channel").closest("p").hidden = !offered.length;
    byId("comparison-data").hidden = !offered.length;
    return offered.length ? plot() : Charts.forget("comparison-plot");
  }

  return { render };
})();
