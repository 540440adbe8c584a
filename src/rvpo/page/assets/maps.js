"use strict";
/* Two heat maps: who decides over time, and which channels pull against each other. */
const MapsView = (() => {
  const { bySeverity, byId, field, isNumber, list, number, record, text } = Dom;
  let diagnosis = {};

  const order = () => bySeverity(diagnosis).map((channel) => text(channel.name));
  const narrow = () => window.innerWidth < 700;

  /** Labels of rows, thinned where there are too many to read. */
  function labels(names, every, most) {
    const at = names.map((_, i) => i).filter((i) => i % every === 0);
    return { tickmode: "array", tickvals: at, ticktext: at.map((i) => Charts.label(Dom.short(names[i], most))) };
  }

  const rowHeight = (rows) => (rows <= 24 ? 26 : rows <= 60 ? 16 : rows <= 120 ? 9 : 6);
  const bar = (height) => ({
    thickness: 10,
    outlinewidth: 0,
    lenmode: "pixels",
    len: Math.min(height, 260),
    y: 1,
    yanchor: "top",
  });

  // ---- who decides, over time ----

  function responsibilities() {
    const curves = record(diagnosis.curves);
    const names = order().filter((name) => list(field(curves.responsibility, name)).some(isNumber));
    return { steps: list(curves.steps), names, rows: names.map((name) => list(field(curves.responsibility, name))) };
  }

  function drawResponsibilities({ steps, names, rows }) {
    const last = rows.map((row) => row.filter(isNumber).at(-1) ?? 0);
    const leader = names[last.indexOf(Math.max(...last))];
    const height = names.length * rowHeight(names.length);
    Charts.draw(
      "responsibility-plot",
      `Heat map of the responsibility of ${Dom.plural(names.length, "channel")} over the steps. ` +
        `At the end ${leader} decides most, ${number(Math.max(...last))}. ${Charts.SEE_TABLE}`,
      () => ({
        traces: [
          {
            type: "heatmap",
            z: rows,
            x: steps.map((_, t) => t),
            y: names.map((_, i) => i),
            zmin: 0,
            hoverongaps: false,
            xgap: steps.length > (narrow() ? 24 : 80) ? 0 : 1,
            ygap: names.length > 60 ? 0 : 1,
            customdata: names.map((name) => steps.map((step) => [Charts.label(Dom.short(name, 40)), step])),
            colorscale: Charts.scale("map-0", "map-1", "map-2"),
            colorbar: bar(height),
            hovertemplate: "%{customdata[0]}<br>step %{customdata[1]}: %{z:.2f}<extra></extra>",
          },
        ],
        layout: {
          height: height + 70,
          margin: { l: 40, r: 8, t: 8, b: 44 },
          xaxis: Charts.axis({ title: { text: "Step" }, showgrid: false, zeroline: false, ticks: "", ...ticks(steps) }),
          yaxis: rowAxis(names, height),
        },
      }),
    );
    Charts.table("responsibility-data", "Responsibilities", () => [
      ["Step", ...names],
      steps.map((step, t) => [text(step), ...rows.map((row) => number(row[t], 3))]),
    ]);
  }

  /** About six of the steps as labels, at their places in the order. */
  function ticks(steps) {
    const every = Math.max(1, Math.ceil(steps.length / (narrow() ? 4 : 8)));
    const at = steps.map((_, t) => t).filter((t) => t % every === 0);
    return { tickmode: "array", tickvals: at, ticktext: at.map((t) => text(steps[t])) };
  }

  function rowAxis(names, height) {
    const every = Math.ceil((16 * names.length) / height);
    return Charts.axis({
      showgrid: false,
      zeroline: false,
      ticks: "",
      autorange: "reversed",
      ...labels(names, every, narrow() ? 14 : 28),
    });
  }

  // ---- who disagrees ----

  function correlations() {
    const original = list(diagnosis.channels).map((channel) => text(record(channel).name));
    const names = order();
    const at = names.map((name) => original.indexOf(name));
    const rows = at.map((i) => at.map((j) => (i === j ? null : (list(list(diagnosis.correlations)[i])[j] ?? null))));
    return { names, rows };
  }

  function pairs({ names, rows }) {
    const all = names.flatMap((a, i) => names.slice(i + 1).map((b, j) => ({ a, b, r: rows[i][i + 1 + j] })));
    return all.filter(({ r }) => isNumber(r)).sort((a, b) => a.r - b.r);
  }

  function story(all) {
    const against = all.filter(({ r }) => r < -0.05).slice(0, 3);
    const say = ({ a, b, r }) => `${Dom.short(a)} and ${Dom.short(b)} (${number(r)})`;
    const most = against.length ? `Most at odds: ${against.map(say).join(", ")}.` : "No two channels are at odds.";
    return `Between z-scores within groups, where both channels are live. ${most}`;
  }

  function drawCorrelations(map) {
    const { names, rows } = map;
    const few = names.length <= (narrow() ? 6 : 12);
    const side = Math.min(Math.max(names.length * (few ? 46 : 22), 220), 640);
    byId("correlation-lead").textContent = story(pairs(map));
    Charts.draw(
      "correlation-plot",
      `Correlations between ${Dom.plural(names.length, "channel")}. ${story(pairs(map))} ${Charts.SEE_TABLE}`,
      () => ({
        traces: [
          {
            type: "heatmap",
            z: rows,
            x: names.map((_, i) => i),
            y: names.map((_, i) => i),
            zmin: -1,
            zmax: 1,
            hoverongaps: false,
            xgap: names.length > 60 ? 0 : 1,
            ygap: names.length > 60 ? 0 : 1,
            customdata: names.map((a) => names.map((b) => [Charts.label(Dom.short(a)), Charts.label(Dom.short(b))])),
            colorscale: Charts.scale("odds-2", "odds-1", "map-0", "agree-1", "agree-2"),
            colorbar: bar(side),
            text: rows.map((row) => row.map((r) => (few && isNumber(r) ? number(r) : ""))),
            texttemplate: few ? "%{text}" : "",
            hovertemplate: "%{customdata[0]}<br>%{customdata[1]}: %{z:.2f}<extra></extra>",
          },
        ],
        layout: {
          height: side + 110,
          margin: { l: 40, r: 8, t: 8, b: 60 },
          yaxis: rowAxis(names, side),
          xaxis: Charts.axis({
            showgrid: false,
            zeroline: false,
            ticks: "",
            tickangle: -40,
            ...labels(names, Math.ceil(names.length / 24), narrow() ? 10 : 18),
          }),
        },
      }),
    );
    Charts.table("correlation-data", "Correlations between channels", () => [
      ["Channel", ...names],
      names.map((name, i) => [name, ...rows[i].map((r) => number(r))]),
    ]);
  }

  function render(run) {
    diagnosis = record(run.diagnosis);
    const decides = responsibilities();
    const map = correlations();
    const hasFirst = Dom.show("responsibility-map", decides.names.length > 0 && decides.steps.length > 0);
    const hasSecond = Dom.show("correlation-map", pairs(map).length > 0);
    Dom.show("maps", hasFirst || hasSecond);
    if (hasFirst) drawResponsibilities(decides);
    else Charts.forget("responsibility-plot");
    if (hasSecond) drawCorrelations(map);
    else Charts.forget("correlation-plot");
  }

  return { render };
})();
