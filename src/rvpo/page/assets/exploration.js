"use strict";
/* Exploration: questions solved by none, some and all of their completions, Pass@k, and entropy. */
const ExplorationView = (() => {
  const { byId, el, field, isNumber, list, number, percent, record, text } = Dom;
  const QUESTION = ""; // the choice "all channels that count", next to single channels
  const METRICS = [
    ["solved", "Solved by", "Shares of the questions that none, some or all of their completions solve."],
    [
      "passes",
      "Pass@k",
      "Probability that at least one of k completions solves the question: an unbiased estimate from the rollouts.",
    ],
    ["entropy", "Entropy", "Mean entropy of the policy over tokens, as the trainer logged it."],
  ];
  const RAW = 12; // curves with at most this many points are not smoothed
  let metric = "solved";
  let chosen = QUESTION;
  let exploration = {};

  const steps = () => list(exploration.steps);
  const curves = () => record(chosen === QUESTION ? exploration.solved : field(exploration.channels, chosen));

  /** The lines of the chosen quantity: [name, values]. */
  function lines() {
    if (metric === "entropy") return [["entropy", list(exploration.entropy)]];
    if (metric === "solved") return ["none", "some", "all"].map((name) => [name, list(curves()[name])]);
    return Object.entries(record(curves().passes))
      .sort(([a], [b]) => Number(a) - Number(b))
      .map(([k, values]) => [`pass@${k}`, list(values)]);
  }

  /** Points on each side that a drawn point averages. Entropy needs none: it is already a mean over many tokens. */
  const reach = () => (metric === "entropy" || steps().length <= RAW ? 0 : Math.max(1, Math.round(steps().length / 24)));

  function smoothed(values) {
    return values.map((value, t) => {
      if (!isNumber(value)) return null;
      const near = values.slice(Math.max(t - reach(), 0), t + reach() + 1).filter(isNumber);
      return near.reduce((total, x) => total + x, 0) / near.length;
    });
  }

  const show = (value) => (metric === "entropy" ? number(value) : percent(value));

  function trace([name, y], i) {
    const { colour, dash } = Charts.style(i);
    return {
      x: steps(),
      y: smoothed(y),
      name: Charts.label(name),
      mode: steps().length <= 40 ? "lines+markers" : "lines",
      line: { color: Charts.colour(colour), dash, width: 2.5 },
      marker: { size: 5 },
      connectgaps: metric === "entropy", // logged every few steps
      hovertemplate: metric === "entropy" ? "%{y:.3f}" : "%{y:.0%}",
    };
  }

  function describe(shown) {
    const ways = shown.flatMap(([name, values]) => {
      const seen = values.filter(isNumber);
      return seen.length ? [`${name} from ${show(seen[0])} to ${show(seen[seen.length - 1])}`] : [];
    });
    const [, label] = METRICS.find(([value]) => value === metric);
    return `Lines of ${label.toLowerCase()} over ${Dom.plural(steps().length, "step")}. ${ways.join("; ")}. ${Charts.SEE_TABLE}`;
  }

  function plot() {
    const shown = lines();
    const axis = metric === "entropy" ? { rangemode: "tozero" } : { range: [-0.03, 1.03], tickformat: ".0%" };
    Charts.draw("exploration-plot", describe(shown), () => ({
      traces: shown.map(trace),
      layout: {
        height: 340,
        hovermode: "x unified",
        xaxis: Charts.axis({ title: { text: "Step" }, zeroline: false }),
        yaxis: Charts.axis({ title: { text: METRICS.find(([value]) => value === metric)[1] }, ...axis }),
      },
    }));
    const drawn = reach() ? ` Each drawn point is the mean of ${2 * reach() + 1} points.` : "";
    byId("exploration-lead").textContent = METRICS.find(([value]) => value === metric)[2] + drawn;
    byId("exploration-of").hidden = metric === "entropy";
    byId("exploration-key").replaceChildren(
      ...shown.map(([name], i) => el("li", {}, Charts.swatch(i), el("span", {}, name))),
    );
    Charts.table("exploration-data", "Exploration", () => [
      ["Step", ...shown.map(([name]) => name)],
      steps().map((step, t) => [text(step), ...shown.map(([, values]) => number(values[t], 3))]),
    ]);
  }

  function choices() {
    const all = exploration.solved ? [[QUESTION, "The question: all channels that count"]] : [];
    return [...all, ...Object.keys(record(exploration.channels)).map((name) => [name, Dom.short(name, 60)])];
  }

  function render(run) {
    exploration = record(record(run.diagnosis).exploration);
    const ofQuestions = choices();
    const offered = METRICS.filter(([value]) =>
      value === "entropy" ? list(exploration.entropy).some(isNumber) : ofQuestions.length > 0,
    );
    if (!Dom.show("exploration", steps().length > 0 && offered.length > 0)) return Charts.forget("exploration-plot");
    if (!offered.some(([value]) => value === metric)) [[metric]] = offered;
    Dom.segmented(byId("exploration-metric"), offered, metric, (value) => {
      metric = value;
      plot();
    });
    chosen = Dom.fillSelect(byId("exploration-channel"), ofQuestions, chosen);
    byId("exploration-channel").onchange = (event) => {
      chosen = event.target.value;
      plot();
    };
    Dom.notes(byId("exploration-notes"), run.exploration);
    return plot();
  }

  return { render };
})();
