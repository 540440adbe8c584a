"use strict";
/* What other rules would have done with the logged rewards. */
const ReplayView = (() => {
  const { byId, bySeverity, data, el, field, isNumber, list, number, percent, record, shaded, text } = Dom;
  const METRICS = [
    [
      "influence",
      "Correlation",
      "Correlation of a rule's advantages with the channel, within groups. Below 0, completions that are better in the channel are discouraged.",
    ],
    [
      "pull",
      "Pull",
      "How far the channel moves the rule's advantages while all others stay the same, in units of the average channel.",
    ],
    ["responsibility", "Responsibility", "Mean share of the decision, as the rule itself defines it."],
  ];
  let metric = "influence";
  let run = {};

  const rules = () => list(record(run.replay).rules).map(record);
  const title = (rule) => text(rule.label || rule.method);

  function ownText(replay) {
    const { method, largest_difference: difference, note } = record(replay.own);
    const parts = [
      method
        ? `The rules are compared with the advantages used in training: ${text(method)}.`
        : "The rules are compared with the advantages used in training.",
    ];
    if (isNumber(difference))
      parts.push(
        `Computed again by rvpo, these differ by at most ${difference === 0 ? "0" : difference.toPrecision(2)}.`,
      );
    return [...parts, text(note)].join(" ").trim();
  }

  function table() {
    const heads = ["Rule", "Sign flips", "Rank correlation", "Effective channels"];
    const rows = rules().map((rule) => [
      title(rule),
      data(rule.sign_flips, percent(rule.sign_flips)),
      data(rule.rank_correlation, number(rule.rank_correlation)),
      data(rule.effective_channels, number(rule.effective_channels, 1)),
    ]);
    Dom.fillTable(byId("replay-table"), "Rules on the logged rewards", heads, rows);
  }

  /** All channels of the diagnosis or of a rule. Channels that need attention come first. */
  function channels() {
    const first = bySeverity(run.diagnosis).map((channel) => text(channel.name));
    return [...new Set([...first, ...rules().flatMap((rule) => Object.keys(record(rule[metric])))])];
  }

  function channelTable() {
    const value = (rule, name) => field(rule[metric], name);
    const all = rules()
      .flatMap((rule) => Object.values(record(rule[metric])))
      .filter(isNumber)
      .map(Math.abs);
    const scale = Math.max(0, ...all);
    const rows = channels().map((name) => [
      name,
      ...rules().map((rule) => shaded(value(rule, name), scale, data(value(rule, name), number(value(rule, name))))),
    ]);
    Dom.fillTable(
      byId("replay-channels"),
      "What each channel gets under each rule",
      ["Channel", ...rules().map(title)],
      rows,
    );
    byId("replay-lead").textContent = METRICS.find(([key]) => key === metric)[2];
  }

  function render(shown) {
    run = shown;
    if (!Dom.show("replay", rules().length > 0)) return;
    const conclusion = text(record(run.replay).conclusion);
    byId("replay-conclusion").textContent = conclusion;
    Dom.show("replay-conclusion", conclusion !== "");
    byId("replay-own").textContent = ownText(record(run.replay));
    const offered = METRICS.filter(([key]) => rules().some((rule) => rule[key]));
    if (!offered.some(([key]) => key === metric)) [[metric]] = METRICS;
    Dom.segmented(byId("replay-metric"), offered, metric, (value) => {
      metric = value;
      channelTable();
    });
    table();
    channelTable();
    const problems = rules().flatMap((rule) => (rule.problem ? [`${title(rule)}: ${text(rule.problem)}`] : []));
    Dom.notes(byId("replay-notes"), [...problems, ...list(record(run.replay).notes)]);
  }

  return { render };
})();
