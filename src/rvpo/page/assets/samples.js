"use strict";
/* Completions, one at a time, with the reward of every channel. */
const SamplesView = (() => {
  const { byId, data, el, field, fillTable, isNumber, list, number, record, shaded, signed, text } = Dom;
  const EVERY = "";
  let samples = [];
  let channel = EVERY;
  let place = 0;
  let drawn = "";
  let pictures = {};

  // A channel may itself be named "", so values in the select start with a mark.
  const shown = () => samples.filter((sample) => channel === EVERY || `=${text(sample.worst)}` === channel);

  /** Sort by z, lowest first. Ties are sorted by responsibility, highest first. Missing rewards come last. */
  function cellsOf(sample) {
    const key = (cell) => (isNumber(cell.z) ? cell.z : Infinity);
    const share = (cell) => (isNumber(cell.responsibility) ? cell.responsibility : 0);
    return list(sample.cells)
      .map(record)
      .sort((a, b) => (key(a) === key(b) ? share(b) - share(a) : key(a) - key(b)));
  }

  function nameOf(cell) {
    const criterion = [cell.criterion, cell.text]
      .filter((part) => part)
      .map(text)
      .join(": ");
    return [el("span", {}, text(cell.channel)), criterion ? el("span", { class: "rule" }, criterion) : null];
  }

  function reward(cell) {
    return isNumber(cell.reward) ? data(cell.reward, number(cell.reward)) : el("span", { class: "muted" }, "missing");
  }

  function why(cell) {
    return el(
      "td",
      { class: "why" },
      [cell.reason, cell.detail]
        .filter((part) => part)
        .map(text)
        .join(" · "),
    );
  }

  function cellTable(sample) {
    const rows = cellsOf(sample).map((cell) => [
      el("th", { scope: "row" }, nameOf(cell)),
      reward(cell),
      data(cell.z, signed(cell.z)),
      shaded(cell.responsibility, 1, data(cell.responsibility, number(cell.responsibility))),
      why(cell),
    ]);
    return fillTable(
      el("table", { class: "shaded" }),
      "Channels of this completion",
      ["Channel", "Reward", "z", "Responsibility", "Reason"],
      rows,
    );
  }

  function passage(title, content, id) {
    return [
      el("h4", { id }, title),
      el("pre", { id: `${id}-text`, tabindex: "0", role: "region", "aria-labelledby": id }, text(content)),
    ];
  }

  /** The pictures of a prompt. Only data URLs of PNG or JPEG, which rvpo writes, are shown. */
  function gallery(sample) {
    const names = list(sample.pictures);
    if (!names.length) return [];
    const address = (name) => text(field(pictures, text(name)));
    const known = names.filter((name) => /^data:image\/(png|jpeg);base64,[A-Za-z0-9+/=]+$/.test(address(name)));
    const absent = names.length - known.length;
    return [
      el(
        "div",
        { class: "pictures" },
        known.map((name, i) => el("img", { src: address(name), alt: `Picture ${i + 1} of the prompt` })),
        absent ? el("p", { class: "muted" }, `${Dom.plural(absent, "picture")} not recorded in the logs`) : null,
      ),
    ];
  }

  function article(sample) {
    const facts = [
      isNumber(sample.step) ? `step ${sample.step}` : "",
      sample.worst !== null && sample.worst !== undefined ? `lowest in ${text(sample.worst)}` : "",
      isNumber(sample.advantage) ? `advantage ${signed(sample.advantage)}` : "",
    ];
    const cells = el(
      "div",
      { class: "wide tall", role: "region", "aria-label": "Channels of this completion", tabindex: "0" },
      cellTable(sample),
    );
    return [
      el("h3", {}, facts.filter((fact) => fact).join(" · ") || "Completion"),
      ...passage("Prompt", sample.prompt, "sample-prompt"),
      ...gallery(sample),
      ...passage("Completion", sample.completion, "sample-completion"),
      cells,
    ];
  }

  function draw() {
    const all = shown();
    place = Math.min(Math.max(place, 0), Math.max(all.length - 1, 0));
    byId("samples-position").textContent = all.length ? `${place + 1} of ${all.length}` : "none";
    byId("samples-previous").setAttribute("aria-disabled", String(place <= 0));
    byId("samples-next").setAttribute("aria-disabled", String(place >= all.length - 1));
    const sample = JSON.stringify(all[place] ?? null);
    if (sample === drawn) return; // a refresh must not scroll the reader back
    drawn = sample;
    byId("sample").replaceChildren(...(all.length ? article(all[place]) : []));
  }

  function move(by) {
    place += by;
    draw();
  }

  function onKey(event) {
    const by = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
    if (by === undefined) return;
    event.preventDefault();
    place = by === -Infinity ? 0 : by === Infinity ? shown().length - 1 : place + by;
    draw();
  }

  function controls() {
    const worst = [...new Set(samples.map((sample) => text(sample.worst)))].sort();
    const options = worst.map((name) => [
      `=${name}`,
      `${name || "none"} (${samples.filter((sample) => text(sample.worst) === name).length})`,
    ]);
    channel = Dom.fillSelect(
      byId("samples-channel"),
      [[EVERY, `any channel (${samples.length})`], ...options],
      channel,
    );
    byId("samples-channel").onchange = (event) => {
      channel = event.target.value;
      place = 0;
      draw();
    };
    byId("samples-previous").onclick = () => move(-1);
    byId("samples-next").onclick = () => move(1);
    byId("samples-previous").parentElement.onkeydown = onKey;
  }

  /** Number of samples in which a channel is the lowest. */
  const count = (name) => samples.filter((sample) => text(sample.worst) === text(name)).length;

  /** Show the samples in which a channel is the lowest, and scroll to them. */
  function open(name) {
    channel = Dom.fillSelectTo(byId("samples-channel"), `=${text(name)}`, EVERY);
    place = 0;
    draw();
    byId("samples").scrollIntoView();
    byId("samples-channel").focus({ preventScroll: true });
  }

  /** A button that opens the samples in which a channel is the lowest; null if there are none. */
  function link(name) {
    const n = count(name);
    if (!n) return null;
    return el(
      "button",
      { type: "button", class: "link", onclick: () => open(name) },
      `${Dom.plural(n, "sample")} where it is lowest`,
    );
  }

  function render(run) {
    samples = list(run.samples).map(record);
    pictures = record(run.pictures);
    if (!Dom.show("samples", samples.length > 0)) return;
    controls();
    draw();
  }

  return { link, render };
})();
