"use strict";
/* The verdicts: the sentence, the tiles and the table of channels. */
const DiagnosisView = (() => {
  const {
    badge,
    byId,
    bySeverity,
    count,
    data,
    el,
    isNumber,
    list,
    names,
    number,
    percent,
    plural,
    record,
    signed,
    svg,
    text,
  } = Dom;
  const STATES = ["live", "dead", "missing"];
  const MANY = 24;
  let all = false; // whether a long table shows all of its channels
  let order = { key: "verdict", down: false };
  let shown = {};

  // ---- the sentence and the numbers ----

  function withVerdict(channels, verdict) {
    return channels.filter((channel) => channel.verdict === verdict).map((channel) => text(channel.name));
  }

  const are = (all) => (all.length === 1 ? "is" : "are");

  /** "2 of 6 channels are neglected: format, safety." */
  function first(channels) {
    const diverging = withVerdict(channels, "diverging");
    if (diverging.length)
      return `${diverging.length} of ${plural(channels.length, "channel")} ${are(diverging)} diverging from a monitor: ${names(diverging)}.`;
    const neglected = withVerdict(channels, "neglected");
    if (neglected.length)
      return `${neglected.length} of ${plural(channels.length, "channel")} ${are(neglected)} neglected: ${names(neglected)}.`;
    if (withVerdict(channels, "unclear").length === channels.length)
      return "It is unclear whether a channel is neglected: more groups are needed.";
    return channels.length === 1 ? "The only channel is not neglected." : `None of ${channels.length} channels is neglected.`;
  }

  /** The summary in the run's data, or else our own, followed by sentences such as "1 is noisy: helpful." */
  function sentence(run, channels) {
    if (!channels.length) return "No channels were found.";
    const others = Dom.VERDICTS.slice(2, -1).flatMap((verdict) => {
      const all = withVerdict(channels, verdict);
      return all.length ? [`${all.length} ${are(all)} ${verdict}: ${names(all)}.`] : [];
    });
    return [text(run.summary) || first(channels), ...others].join(" ");
  }

  /** "format is neglected in 4 of 15 runs, safety in 1." */
  function acrossRuns(runs) {
    const times = new Map();
    for (const run of runs)
      for (const name of withVerdict(bySeverity(record(run.diagnosis)), "neglected"))
        times.set(name, (times.get(name) || 0) + 1);
    const ranked = [...times].sort((a, b) => b[1] - a[1]);
    if (!ranked.length) return `No channel is neglected in any of ${plural(runs.length, "run")}.`;
    const [[name, most], ...others] = ranked;
    const rest = others.slice(0, 4).map(([other, n]) => `, ${other} in ${n}`);
    return `${name} is neglected in ${most} of ${plural(runs.length, "run")}${rest.join("")}.`;
  }

  function lowest(channels, field) {
    return channels
      .filter((channel) => isNumber(record(channel[field]).value))
      .sort((a, b) => a[field].value - b[field].value)[0];
  }

  function tiles(diagnosis, channels) {
    const least = lowest(channels, "correlation");
    const missing = channels.map((channel) => channel.missing).filter(isNumber);
    const all = [
      ["Steps", count(diagnosis.steps), ""],
      ["Completions", count(diagnosis.completions), `in ${plural(diagnosis.groups, "group")}`],
      ["Neglected", `${withVerdict(channels, "neglected").length}`, `of ${plural(channels.length, "channel")}`],
      [
        "Least followed",
        least ? number(least.correlation.value) : "–",
        least ? text(least.name) : "no correlation could be computed",
      ],
      [
        "Not scored",
        missing.length ? percent(missing.reduce((a, b) => a + b, 0) / missing.length) : "–",
        "of all rewards",
      ],
    ];
    return all.map(([term, value, note]) =>
      el("div", {}, el("dt", {}, term), el("dd", {}, value), el("dd", { class: "muted", title: note }, note)),
    );
  }

  /** A guess as a clause with its reason and the option that replaces it. A plain text is returned unchanged. */
  function clause(guess) {
    if (typeof guess !== "object" || guess === null) return text(guess);
    const settled = [guess.why, guess.option].map(text).filter((part) => part);
    return text(guess.what) + (settled.length ? ` (${settled.join("; ")})` : "");
  }

  /**
   * Show what was assumed about the logs, above everything that follows from it. In older data, assumptions are among
   * the notes. Return the other notes.
   */
  function guesses(diagnosis) {
    const notes = list(diagnosis.notes).map(text);
    const given = list(diagnosis.guesses).map(clause);
    const assumed = given.length ? [] : notes.filter((note) => /\b(assum|guess|estimat)/i.test(note));
    const found = [...given, ...assumed].filter((guess) => guess);
    byId("guesses").replaceChildren(
      ...(found.length
        ? [
            el(
              "div",
              { class: "guesses" },
              el("strong", {}, "Assumed, because the logs do not contain it:"),
              el(
                "ul",
                {},
                found.map((guess) => el("li", {}, guess)),
              ),
            ),
          ]
        : []),
    );
    return notes.filter((note) => !assumed.includes(note) && !given.includes(note));
  }

  function facts(run) {
    const diagnosis = record(run.diagnosis);
    const channels = bySeverity(diagnosis);
    const facts = [
      run.name || diagnosis.run,
      diagnosis.method && `advantages: ${text(diagnosis.method)}`,
      run.path || diagnosis.path,
    ];
    byId("facts").textContent = [...new Set(facts.map(text).filter((fact) => fact))].join(" · ");
    byId("tiles").replaceChildren(...tiles(diagnosis, channels));
    Dom.notes(byId("notes"), guesses(diagnosis));
  }

  /** The headline. With several runs, it covers them all, and a sentence about the chosen run follows. */
  function overview(report, chosen, choose) {
    const runs = list(report.runs).map(record);
    const run = record(runs[chosen]);
    const own = sentence(run, bySeverity(record(run.diagnosis)));
    const several = runs.length > 1;
    byId("sentence").textContent = several ? text(report.headline) || acrossRuns(runs) : own;
    byId("run-sentence").textContent = several ? `Run ${chosen + 1} of ${runs.length}, ${text(run.name)}: ${own}` : "";
    Dom.show("run-sentence", several);
    allRuns(runs, chosen, choose);
  }

  /** All runs, one per row. A click on its name selects a run. */
  function allRuns(runs, chosen, choose) {
    if (!Dom.show("runs", runs.length > 1)) return;
    const rows = runs.map((run, i) => {
      const diagnosis = record(run.diagnosis);
      const channels = bySeverity(diagnosis);
      const neglected = withVerdict(channels, "neglected");
      const pick = el(
        "button",
        {
          type: "button",
          class: "link",
          id: `run-${i}`,
          "aria-pressed": String(i === chosen),
          onclick: () => choose(i),
        },
        text(run.name),
      );
      return [
        pick,
        text(diagnosis.method),
        count(diagnosis.steps),
        `${neglected.length} of ${channels.length}`,
        names(neglected) || "–",
      ];
    });
    Dom.fillTable(byId("runs-table"), "All runs", ["Run", "Method", "Steps", "Neglected", "Which"], rows);
  }

  // ---- the table ----

  const estimate = (value) => record(value);

  function interval(value, show) {
    const { low, high } = estimate(value);
    return isNumber(low) && isNumber(high) ? el("span", { class: "interval" }, `${show(low)} to ${show(high)}`) : null;
  }

  const cell = (value, show) => [data(estimate(value).value, show(estimate(value).value)), interval(value, show)];

  /** The correlation below which a channel counts as outvoted. The share is the one of rvpo.diagnose.verdicts. */
  function threshold(channel) {
    const share = record(shown.thresholds).neglected ?? 0.25;
    return isNumber(channel.fair) ? share * channel.fair : null;
  }

  /** A drawing of the correlation in [-1, 1]: interval, point, zero, and the dashed threshold. */
  function correlationBar(channel) {
    const { value, low, high } = estimate(channel.correlation);
    if (!isNumber(value)) return null;
    const x = (r) => 60 + 56 * Math.min(Math.max(r, -1), 1);
    const bar = svg(
      "svg",
      { viewBox: "0 0 120 20", width: 120, height: 20, class: "whisker", "aria-hidden": "true" },
      svg("line", { x1: 4, x2: 116, y1: 10, y2: 10, class: "track" }),
      svg("line", { x1: 60, x2: 60, y1: 3, y2: 17, class: "zero" }),
    );
    const line = threshold(channel);
    if (isNumber(line)) bar.append(svg("line", { x1: x(line), x2: x(line), y1: 1, y2: 19, class: "threshold" }));
    if (isNumber(low) && isNumber(high))
      bar.append(svg("line", { x1: x(low), x2: x(high), y1: 10, y2: 10, class: "reach" }));
    bar.append(svg("circle", { cx: x(value), cy: 10, r: 4, class: value < (line ?? 0) ? "point low" : "point" }));
    return bar;
  }

  function correlationCell(channel) {
    const line = threshold(channel);
    const note = isNumber(line) ? el("span", { class: "hidden" }, `, threshold ${number(line)}`) : null;
    return [...cell(channel.correlation, number), note, correlationBar(channel)];
  }

  function statesCell(channel) {
    const states = STATES.map((state) => [state, channel[state]]);
    const bar = el(
      "span",
      { class: "states", "aria-hidden": "true" },
      states.map(([state, share]) =>
        el("span", { class: state, vars: { flex: `${isNumber(share) ? share : 0} 0 0` } }),
      ),
    );
    const [live, ...others] = states.map(([state, share]) => `${percent(share)} ${state}`);
    return [live, others.map((other) => el("span", { class: "interval" }, other)), bar];
  }

  const times = (value) => (isNumber(value) ? `${number(value)}×` : "–");
  const of = (field) => (channel) => estimate(channel[field]).value;
  const COLUMNS = [
    { key: "verdict", head: "Channel", sort: null, show: null },
    { key: "pull", head: "Pull", sort: of("pull"), show: (channel) => cell(channel.pull, times) },
    { key: "correlation", head: "Correlation", sort: of("correlation"), show: correlationCell },
    { key: "mean", head: "Mean", sort: of("mean"), show: (channel) => cell(channel.mean, number) },
    { key: "trend", head: "Trend", sort: of("trend"), show: (channel) => cell(channel.trend, signed) },
    { key: "live", head: "Live, dead, missing", sort: (channel) => channel.live, show: statesCell },
    { key: "punished", head: "Punished", sort: of("punished"), show: (channel) => cell(channel.punished, percent) },
    {
      key: "responsibility",
      head: "Responsi\u00adbility",
      sort: of("responsibility"),
      show: (channel) => cell(channel.responsibility, number),
    },
    {
      key: "bottleneck",
      head: "Bottleneck",
      sort: of("bottleneck"),
      show: (channel) => cell(channel.bottleneck, percent),
    },
    { key: "ceiling", head: "Saturated", sort: of("ceiling"), show: (channel) => cell(channel.ceiling, percent) },
    {
      key: "unexplored",
      head: "Un\u00adexplored",
      sort: of("unexplored"),
      show: (channel) => cell(channel.unexplored, percent),
    },
    {
      key: "suppressed",
      head: "Sup\u00adpressed",
      sort: of("suppressed"),
      show: (channel) => cell(channel.suppressed, percent),
    },
  ];

  function sorted(channels) {
    const { sort } = COLUMNS.find((column) => column.key === order.key);
    if (!sort) return order.down ? [...channels].reverse() : channels;
    const value = (channel) => (isNumber(sort(channel)) ? sort(channel) : null);
    const known = channels.filter((channel) => value(channel) !== null);
    known.sort((a, b) => (order.down ? -1 : 1) * (value(a) - value(b)));
    return [...known, ...channels.filter((channel) => value(channel) === null)];
  }

  function sortBy(key) {
    order = { key, down: order.key === key && !order.down };
    table(shown);
    byId(`sort-${key}`).focus();
  }

  function heading({ key, head }) {
    const active = order.key === key;
    const mark = el("span", { "aria-hidden": "true" }, active ? (order.down ? " ↓" : " ↑") : "");
    const button = el("button", { type: "button", id: `sort-${key}`, onclick: () => sortBy(key) }, head, mark);
    return el(
      "th",
      { scope: "col", role: "columnheader", "aria-sort": active ? (order.down ? "descending" : "ascending") : null },
      button,
    );
  }

  function channelCell(channel) {
    const sure = isNumber(channel.confidence)
      ? el("span", { class: "muted sure" }, `${percent(channel.confidence)} sure`)
      : null;
    return el(
      "th",
      { scope: "row", role: "rowheader" },
      el("span", { class: "name" }, text(channel.name)),
      el("span", { class: "verdict" }, badge(channel.verdict), sure),
      el("span", { class: "rule" }, text(channel.rule)),
      el("span", { class: "rule" }, SamplesView.link(channel.name)),
    );
  }

  // The roles are explicit, because the cards of small screens would remove the implicit roles of a table.
  function row(channel) {
    const cells = COLUMNS.slice(1).map(({ head, show }) =>
      el(
        "td",
        { role: "cell" },
        el("span", { class: "label", "aria-hidden": "true" }, head),
        el("span", { class: "value" }, show(channel)),
      ),
    );
    return el("tr", { role: "row" }, channelCell(channel), cells);
  }

  function table(diagnosis) {
    const node = byId("diagnosis-table");
    const rows = sorted(bySeverity(diagnosis));
    node.setAttribute("role", "table");
    node.replaceChildren(
      el("caption", { class: "hidden" }, "Verdict and measurements of each channel"),
      el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, COLUMNS.map(heading))),
      el("tbody", { role: "rowgroup" }, rows.slice(0, all ? rows.length : MANY).map(row)),
    );
    byId("diagnosis-all").hidden = all || rows.length <= MANY;
    byId("diagnosis-all").textContent = `Show all ${rows.length} channels`;
    byId("diagnosis-all").onclick = () => {
      all = true;
      table(shown);
      byId("sort-verdict").focus({ preventScroll: true });
    };
  }

  function key(diagnosis) {
    const bar = correlationBar({ correlation: { value: 0.45, low: 0.25, high: 0.65 }, fair: 0.6 });
    const level = isNumber(diagnosis.level) ? `${percent(diagnosis.level)} interval` : "interval";
    byId("diagnosis-key").replaceChildren(
      el("span", {}, bar, `correlation with its ${level}; solid mark: 0; below the dashed mark: neglected`),
      el(
        "span",
        {},
        STATES.map((state) => [el("span", { class: `states dot ${state}`, "aria-hidden": "true" }), `${state} `]),
      ),
    );
  }

  function render(run) {
    shown = record(run.diagnosis);
    facts(run);
    if (!Dom.show("diagnosis", list(shown.channels).length > 0)) return;
    key(shown);
    table(shown);
  }

  return { overview, render };
})();
