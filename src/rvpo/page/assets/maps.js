"use strict";
/* Two heat maps: which channels decide over time, and which channels pull against each other. */
const MapsView = (() => {
  const { bySeverity, byId, field, isNumber, list, number, record, text } = Dom;
  const METRICS = [
    [
      "say",
      "Influence",
      "How closely the advantage used in training followed each channel. 1: a fair share. Below 0.25: neglected, because the channel hardly moves the advantage or the others outvote it. Below 0: the advantage works against the channel.",
    ],
    [
      "pull",
      "Pull",
      "How far each channel moves the advantage used in training while all others stay the same. 1: as far as the average channel. A channel with a pull of 1 can still be outvoted.",
    ],
  ];
  const MOST = 2; // fair shares at which the colours reach full strength
  let metric = "say";
  let diagnosis = {};

  const order = () => bySeverity(diagnosis).map((channel) => text(channel.name));
  const narrow = () => window.innerWidth < 700;

  /** Labels of rows. Some are left out if there are too many to read. */
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

  // ---- which channels decide, over time ----

  function influence() {
    const { steps, ...all } = record(diagnosis.influence);
    const names = order().filter((name) => list(field(all[metric], name)).some(isNumber));
    return { steps: list(steps), names, rows: names.map((name) => list(field(all[metric], name))) };
  }

  const average = (row) => {
    const known = row.filter(isNumber);
    return known.reduce((total, x) => total + x, 0) / Math.max(known.length, 1);
  };

  /** Such as "On average over the steps, correctness is highest (1.74) and brevity is lowest (−0.79)." */
  function leaders({ names, rows }) {
    const means = rows.map(average);
    const [most, least] = [means.indexOf(Math.max(...means)), means.indexOf(Math.min(...means))];
    const say = (i, place) => `${Dom.short(names[i])} is ${place} (${number(means[i])})`;
    if (most === least) return `${Dom.short(names[most])}: ${number(means[most])} on average over the steps.`;
    return `On average over the steps, ${say(most, "highest")} and ${say(least, "lowest")}.`;
  }

  function drawInfluence(map) {
    const { steps, names, rows } = map;
    const height = names.length * rowHeight(names.length);
    const [, label, lead] = METRICS.find(([value]) => value === metric);
    const few = rows.length <= 24 && steps.length <= (narrow() ? 6 : 24);
    byId("influence-lead").textContent = `${lead} ${leaders(map)}`;
    Charts.draw(
      "influence-plot",
      `Heat map of the ${label.toLowerCase()} of ${Dom.plural(names.length, "channel")} over the steps. ` +
        `${leaders(map)} ${Charts.SEE_TABLE}`,
      () => ({
        traces: [
          {
            type: "heatmap",
            z: rows,
            x: steps.map((_, t) => t),
            y: names.map((_, i) => i),
            zmin: -MOST,
            zmax: MOST,
            hoverongaps: false,
            xgap: steps.length > (narrow() ? 24 : 80) ? 0 : 1,
            ygap: names.length > 60 ? 0 : 1,
            customdata: names.map((name) => steps.map((step) => [Charts.label(Dom.short(name, 40)), step])),
            colorscale: Charts.scale("odds-2", "odds-1", "map-0", "agree-1", "agree-2"),
            colorbar: bar(height),
            text: rows.map((row) => row.map((value) => (few && isNumber(value) ? number(value, 1) : ""))),
            texttemplate: few ? "%{text}" : "",
            hovertemplate: "%{customdata[0]}<br>to step %{customdata[1]}: %{z:.2f}<extra></extra>",
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
    Charts.table("influence-data", label, () => [
      ["Step", ...names],
      steps.map((step, t) => [text(step), ...rows.map((row) => number(row[t], 3))]),
    ]);
  }

  /** Labels of at most eight of the steps, at their positions. */
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

  // ---- which channels disagree ----

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
    const most = against.length ? `Strongest conflicts: ${against.map(say).join(", ")}.` : "No two channels conflict.";
    return `Correlation of z-scores within groups, where both channels are live. ${most}`;
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

  function renderInfluence() {
    const map = influence();
    if (map.names.length && map.steps.length) drawInfluence(map);
    else Charts.forget("influence-plot");
    return map.names.length > 0 && map.steps.length > 0;
  }

  function render(run) {
    diagnosis = record(run.diagnosis);
    const map = correlations();
    const hasSecond = Dom.show("correlation-map", pairs(map).length > 0);
    const there = influence();
    const hasFirst = Dom.show("influence-map", there.names.length > 0 && there.steps.length > 0);
    Dom.show("maps", hasFirst || hasSecond);
    if (hasFirst)
      Dom.segmented(byId("influence-metric"), METRICS, metric, (value) => {
        metric = value;
        renderInfluence();
      });
    renderInfluence();
    if (hasSecond) drawCorrelations(map);
    else Charts.forget("correlation-plot");
  }

  return { render };
})();
