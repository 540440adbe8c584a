"use strict";
/* What to do about each channel that is gamed or neglected: the reason, and a line to copy. On the page's first screen. */
const CardsView = (() => {
  const { badge, byId, bySeverity, el, isNumber, list, percent, record, text } = Dom;
  const FEW = 6;
  const SAID_MS = 2000;
  let every = false; // whether all cards are shown if there are many
  let drawn = "";

  // ---- copying ----

  /** Copy a text by selecting it, for browsers that do not let the page use the clipboard. */
  function copySelected(pre) {
    getSelection().selectAllChildren(pre);
    return document.execCommand("copy");
  }

  async function copy(pre, button) {
    let copied = false;
    try {
      await navigator.clipboard.writeText(pre.textContent);
      copied = true;
    } catch {
      copied = copySelected(pre);
    }
    button.textContent = copied ? "Copied" : "Selected";
    byId("remedies-status").textContent = copied ? "Copied" : "Selected: copy it with the keyboard";
    setTimeout(() => {
      button.textContent = "Copy";
      byId("remedies-status").textContent = "";
    }, SAID_MS);
  }

  /** A line to copy, and where to put it. */
  function line(entry, channel) {
    const where = text(entry.where);
    const pre = el("pre", { class: "code", tabindex: "0", role: "region", "aria-label": where }, text(entry.code));
    const button = el(
      "button",
      { type: "button", "aria-label": `Copy for ${channel}: ${where}`, onclick: () => copy(pre, button) },
      "Copy",
    );
    return el("div", { class: "line" }, el("p", { class: "where" }, where), el("div", { class: "copy" }, pre, button));
  }

  // ---- cards ----

  function others(lines, channel) {
    if (!lines.length) return null;
    return el(
      "details",
      {},
      el("summary", {}, `Other remedies (${lines.length})`),
      lines.map((entry) => line(entry, channel)),
    );
  }

  function card(entry, i) {
    const name = text(entry.channel);
    const [first, ...rest] = list(entry.lines).map(record);
    const sure = isNumber(entry.sure) ? `${percent(entry.sure)} sure` : "";
    return el(
      "article",
      { class: "card", "aria-labelledby": `card-${i}` },
      el("h3", { id: `card-${i}` }, el("span", { class: "name" }, name), badge(text(entry.verdict) || "neglected")),
      sure ? el("span", { class: "muted sure" }, sure) : null,
      el("p", { class: "why" }, el("strong", {}, "Why: "), text(entry.why)),
      first ? el("p", { class: "todo" }, el("strong", {}, "What to type:")) : null,
      first ? line(first, name) : null,
      entry.evidence ? el("p", { class: "evidence muted" }, text(entry.evidence)) : null,
      others(rest, name),
      el("p", { class: "links" }, SamplesView.link(name)),
    );
  }

  function cards(entries) {
    const shown = entries.slice(0, every ? entries.length : FEW);
    const more = el("button", { type: "button", onclick: showAll }, `Show all ${entries.length} channels`);
    return [el("div", { class: "remedies" }, shown.map(card)), shown.length < entries.length ? el("p", {}, more) : null];
  }

  function showAll() {
    every = true;
    drawn = "";
    CardsView.render(CardsView.run);
  }

  // ---- the other channels ----

  const MEANS = {
    noisy: "Equal completions got different scores. Check its judge or reward function.",
    unclear: "More groups are needed to be sure. Log more steps.",
    dead: "In hardly any group are completions scored differently, so the policy learns nothing from it. Check its reward function, or the prompts.",
  };

  /** Channels that are not neglected but need attention. */
  function otherChannels(run) {
    const found = bySeverity(run.diagnosis).filter((channel) => ["noisy", "unclear", "dead"].includes(channel.verdict));
    const rows = found
      .slice(0, FEW)
      .map((channel) =>
        el("li", {}, el("strong", {}, text(channel.name)), " ", badge(channel.verdict), ` ${MEANS[channel.verdict]}`),
      );
    if (found.length > FEW) rows.push(el("li", {}, `${found.length - FEW} more, in the table below`));
    byId("others").replaceChildren(...(rows.length ? [el("ul", { class: "others" }, rows)] : []));
  }

  function render(run) {
    CardsView.run = run;
    const entries = list(run.cards).map(record);
    const now = JSON.stringify([entries, list(run.samples).length]);
    otherChannels(run);
    if (now === drawn) return; // a refresh must keep what the reader opened or selected
    drawn = now;
    byId("remedies").replaceChildren(...(entries.length ? cards(entries) : []).filter((node) => node));
  }

  return { render, run: {} };
})();
