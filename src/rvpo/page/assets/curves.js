"use strict";
/* Curves of the channels over the steps: one plot, with a choice of quantity and of channels. */
const CurvesView = (() => {
  const { bySeverity, byId, el, field, isNumber, list, number, percent, record, text } = Dom;
  const METRICS = [
    ["mean", "Mean reward", "Mean reward over the scored completions.", number],
    [
      "responsibility",
      "Responsibility",
      "Mean share of the decision that the channel would have under RVPO's soft minimum, whatever method the run used.",
      number,
    ],
    [
      "correlation",
      "Correlation",
      "Correlation between the advantage used in training and the channel, within groups.",
      number,
    ],
    ["live", "Live", "Share of completions whose group the channel ranks.", percent],
    ["missing", "Missing", "Share of completions on which the channel was not scored.", percent],
  ];
  const FEW = 8;
  const RAW = 12; // curves with at most this many points are not smoothed
  let smooth = true;
  let metric = "mean";
  let chosen = null; // names of the shown channels; null shows the worst few
  let diagnosis = {};

  const curves = () => record(diagnosis.curves);
  const steps = () => list(curves().steps);
  const order = () => bySeverity(diagnosis).map((channel) => text(channel.name));
  const values = (name, which = metric) => list(field(curves()[which], name));
  const known = (which) => order().some((name) => values(name, which).some(isNumber));
  const visible = () => order().filter((name, i) => (chosen ? chosen.has(name) : i < FEW));

  /** Points on each side that a smoothed point averages. The window is about a twelfth of the curve. */
  const reach = () => (steps().length <= RAW ? 0 : Math.max(1, Math.round(steps().length / 24)));

  /** Replace each point by the mean of the points around it. At the ends, the window is shorter. */
  function smoothed(all) {
    const half = smooth ? reach() : 0;
    return all.map((value, t) => {
      if (!isNumber(value)) return null;
      const near = all.slice(Math.max(t - half, 0), t + half + 1).filter(isNumber);
      return near.reduce((total, x) => total + x, 0) / near.length;
    });
  }

  const neglected = () =>
    new Set(bySeverity(diagnosis).flatMap((channel) => (channel.verdict === "neglected" ? [text(channel.name)] : [])));

  /** Order the channels so that neglected ones are drawn last, in front of the others. */
  function inFront(names) {
    const strong = neglected();
    return [...names.filter((name) => !strong.has(name)), ...names.filter((name) => strong.has(name)).reverse()];
  }

  function trace(name) {
    const { colour, dash } = Charts.style(order().indexOf(name));
    const points = steps().length <= RAW;
    const strong = neglected();
    const quiet = strong.size > 0 && !strong.has(name);
    return {
      x: steps(),
      y: smoothed(values(name)),
      name: Charts.label(Dom.short(name, 40)),
      mode: points ? "lines+markers" : "lines",
      line: { color: Charts.colour(colour), dash, width: quiet ? 1.25 : 3 },
      opacity: quiet ? 0.75 : 1,
      marker: { size: 5 },
      connectgaps: false,
      hovertemplate: metric === "live" || metric === "missing" ? "%{y:.0%}" : "%{y:.3f}",
    };
  }

  function yaxis() {
    const title = { text: METRICS.find(([value]) => value === metric)[1] };
    if (metric === "live" || metric === "missing")
      return Charts.axis({ title, range: [-0.03, 1.03], tickformat: ".0%" });
    return Charts.axis({
      title,
      zeroline: metric === "correlation",
      rangemode: metric === "responsibility" ? "tozero" : "normal",
    });
  }

  function describe(shown) {
    const [, label, , show] = METRICS.find(([value]) => value === metric);
    const ways = shown.slice(0, FEW).flatMap((name) => {
      const seen = values(name).filter(isNumber);
      return seen.length ? [`${name} from ${show(seen[0])} to ${show(seen[seen.length - 1])}`] : [];
    });
    const what = `Lines of ${label.toLowerCase()} over ${Dom.plural(steps().length, "step")}.`;
    return `${what} ${ways.join("; ")}. ${Charts.SEE_TABLE}`;
  }

  function plot() {
    const shown = visible();
    Charts.draw("curves-plot", describe(shown), () => ({
      traces: inFront(shown).map(trace),
      layout: {
        height: 380,
        hovermode: "x unified",
        xaxis: Charts.axis({ title: { text: "Step" }, zeroline: false }),
        yaxis: yaxis(),
      },
    }));
    const strong = neglected().size > 0 ? " Thick lines are neglected channels." : "";
    byId("curves-lead").textContent = METRICS.find(([value]) => value === metric)[2] + strong;
    Charts.table("curves-data", "Curves", () => [
      ["Step", ...shown],
      steps().map((step, t) => [text(step), ...shown.map((name) => number(values(name)[t], 3))]),
    ]);
  }

  function choose(names) {
    chosen = names;
    chips();
    plot();
  }

  function toggle(name) {
    const names = new Set(visible());
    if (!names.delete(name)) names.add(name);
    choose(names);
  }

  function chips() {
    const focused = document.activeElement && document.activeElement.id;
    const shown = new Set(visible());
    byId("curves-channels").replaceChildren(
      ...order().map((name, i) =>
        el(
          "button",
          {
            type: "button",
            id: `curve-${i}`,
            class: "chip",
            "aria-pressed": String(shown.has(name)),
            onclick: () => toggle(name),
          },
          Charts.swatch(i),
          el("span", {}, name),
        ),
      ),
    );
    if (focused && focused.startsWith("curve-") && byId(focused)) byId(focused).focus({ preventScroll: true });
  }

  function smoothing() {
    byId("curves-smooth").closest("p").hidden = reach() === 0;
    byId("curves-smooth-label").textContent = `Smooth: each point is the mean of ${2 * reach() + 1} points`;
    byId("curves-smooth").checked = smooth;
    byId("curves-smooth").onchange = (event) => {
      smooth = event.target.checked;
      plot();
    };
  }

  function buttons() {
    byId("curves-worst").hidden = order().length <= FEW;
    byId("curves-worst").onclick = () => choose(null);
    byId("curves-all").onclick = () => choose(new Set(order()));
    byId("curves-none").onclick = () => choose(new Set());
  }

  function render(run) {
    diagnosis = record(run.diagnosis);
    const offered = METRICS.filter(([value]) => known(value));
    if (!Dom.show("curves", steps().length > 0 && offered.length > 0)) return Charts.forget("curves-plot");
    if (!known(metric)) [[metric]] = offered;
    Dom.segmented(byId("curves-metric"), offered, metric, (value) => {
      metric = value;
      plot();
    });
    buttons();
    smoothing();
    chips();
    return plot();
  }

  return { render };
})();
