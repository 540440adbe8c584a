"use strict";
/*
 * One group of completions that the reader edits, and the advantages of every rule. The matrix is rebuilt when its
 * shape changes. Numbers and bars are only updated, so that they move while the reader drags k.
 */
const ExplorerView = (() => {
  const { byId, data, el, fillTable, isNumber, list, number, record, shaded, signed, text } = Dom;
  const RULES = [
    ["grpo", "GRPO", "sum of the raw rewards"],
    ["gdpo", "GDPO", "mean of the z-scores"],
    ["rvpo", "RVPO", "soft minimum of the z-scores, with the k above"],
    ["rvpo_explicit", "RVPO-explicit", "mean minus beta times the variance"],
    ["hard_min", "Hard minimum", "the lowest z-score"],
    ["tchebycheff", "Tchebycheff", "largest shortfall from the best reward, plus rho times the mean shortfall"],
    ["smooth_tchebycheff", "Smooth Tchebycheff", "the same with a soft maximum of temperature mu, without rho"],
  ];
  const OPTIONS = {
    rvpo_explicit: [["beta", "beta (empty: k / 2)", (x) => x >= 0, "k / 2"]],
    tchebycheff: [["rho", "rho", (x) => x >= 0]],
    smooth_tchebycheff: [["mu", "mu", (x) => x > 0]],
  };
  const BLANK = {
    name: "Your own",
    channels: ["channel 1", "channel 2"],
    rewards: [[], [], [], []],
    note: "An empty group: type or paste your rewards.",
  };
  const MISSING = ["", "-", "–", "nan", "null", "none"];
  const MOST = 64;

  let presets = [];
  let given = "";
  let names = [];
  let cells = []; // N rows of M texts, as typed
  let ranges = []; // M pairs of numbers
  let k = 1;
  let options = {}; // method -> the options that the reader set
  let rule = "rvpo";

  // ---- reading ----

  /** A typed reward: a number, NaN if missing, or null if it is neither. */
  function parse(typed) {
    const plain = text(typed).trim().toLowerCase().replace("−", "-").replace(",", ".");
    if (MISSING.includes(plain)) return NaN;
    const value = Number(plain);
    return Number.isFinite(value) ? value : null;
  }

  const rewards = () => cells.map((row) => row.map((typed) => parse(typed) ?? NaN));

  function optionsOf(method) {
    const own = { ...(method === "rvpo" ? { k } : {}), ...(method === "rvpo_explicit" ? { beta: k / 2 } : {}) };
    return { ...own, ...options[method], ranges };
  }

  const results = () =>
    Object.fromEntries(RULES.map(([method]) => [method, Rules.advantages(rewards(), method, optionsOf(method))]));

  // ---- the matrix ----

  function load(preset) {
    const source = record(preset);
    const rows = list(source.rewards);
    const columns = Math.max(1, list(source.channels).length, ...rows.map((row) => list(row).length));
    const each = Array.from({ length: columns }, (_, j) => j);
    names = each.map((j) => text(list(source.channels)[j] ?? `channel ${j + 1}`));
    cells = (rows.length ? rows : [[]]).map((row) => each.map((j) => (isNumber(list(row)[j]) ? String(row[j]) : "")));
    ranges = each.map((j) => (list(list(source.ranges)[j]).length === 2 ? [...source.ranges[j]] : [0, 1]));
    byId("preset-note").textContent = text(source.note);
    rebuild();
  }

  function cellInput(g, j) {
    return el("input", {
      id: `cell-${g}-${j}`,
      value: cells[g][j],
      inputmode: "decimal",
      autocomplete: "off",
      size: 6,
      "aria-label": `completion ${g + 1}, ${names[j]}`,
      oninput: (event) => {
        cells[g][j] = event.target.value;
        update();
      },
      onkeydown: (event) => move(event, g, j),
      onpaste: (event) => paste(event, g, j),
      onfocus: (event) => event.target.select(),
    });
  }

  function move(event, g, j) {
    const by = { ArrowUp: -1, ArrowDown: 1, Enter: 1 }[event.key];
    const next = by && byId(`cell-${g + by}-${j}`);
    if (!next) return;
    event.preventDefault();
    next.focus();
  }

  /** A pasted block fills the cells from this one on. Rows and columns are added as needed. */
  function paste(event, g, j) {
    const block = event.clipboardData
      .getData("text")
      .replace(/\r?\n$/, "")
      .split(/\r?\n/)
      .map((line) => line.split("\t"));
    if (block.length === 1 && block[0].length === 1) return;
    event.preventDefault();
    block.slice(0, MOST - g).forEach((line, y) =>
      line.slice(0, MOST - j).forEach((typed, x) => {
        while (cells.length <= g + y) pushRow();
        while (names.length <= j + x) pushColumn();
        cells[g + y][j + x] = typed.trim();
      }),
    );
    rebuild(`cell-${g}-${j}`);
  }

  const pushRow = () => cells.push(names.map(() => ""));

  function pushColumn() {
    names.push(`channel ${names.length + 1}`);
    ranges.push([0, 1]);
    cells.forEach((row) => row.push(""));
  }

  function removeRow(g) {
    cells.splice(g, 1);
    rebuild(`remove-row-${Math.min(g, cells.length - 1)}`);
  }

  function removeColumn(j) {
    [names, ranges, ...cells].forEach((row) => row.splice(j, 1));
    rebuild(`remove-column-${Math.min(j, names.length - 1)}`);
  }

  function remover(id, label, few, onclick) {
    return el(
      "button",
      { type: "button", class: "remove", id, "aria-label": label, title: label, disabled: few, onclick },
      "×",
    );
  }

  function nameInput(j) {
    return el("input", {
      id: `name-${j}`,
      class: "channel-name",
      value: names[j],
      size: 9,
      autocomplete: "off",
      "aria-label": `name of channel ${j + 1}`,
      onfocus: (event) => event.target.select(),
      oninput: (event) => {
        names[j] = event.target.value;
        relabel(j);
        update();
      },
    });
  }

  function relabel(j) {
    cells.forEach((_, g) => byId(`cell-${g}-${j}`).setAttribute("aria-label", `completion ${g + 1}, ${names[j]}`));
  }

  function rangeInput(j, end) {
    const label = `${end ? "highest" : "lowest"} reward of channel ${j + 1}`;
    return el("input", {
      id: `range-${end}-${j}`,
      value: String(ranges[j][end]),
      inputmode: "decimal",
      autocomplete: "off",
      size: 6,
      "aria-label": label,
      oninput: (event) => setRange(event.target, j, end),
    });
  }

  function setRange(input, j, end) {
    const value = parse(input.value);
    const pair = end ? [ranges[j][0], value] : [value, ranges[j][1]];
    const fits = isNumber(value) && pair[0] < pair[1];
    input.setAttribute("aria-invalid", String(!fits));
    if (fits) ranges[j] = pair;
    update();
  }

  function matrix() {
    const head = names.map((_, j) => el("th", { scope: "col" }, nameInput(j)));
    const body = cells.map((row, g) =>
      el(
        "tr",
        {},
        el("th", { scope: "row" }, String(g + 1)),
        row.map((_, j) => el("td", {}, cellInput(g, j))),
        el(
          "td",
          {},
          remover(`remove-row-${g}`, `Remove completion ${g + 1}`, cells.length < 2, () => removeRow(g)),
        ),
      ),
    );
    const foot = [
      ["lowest", 0],
      ["highest", 1],
    ].map(([label, end]) =>
      el(
        "tr",
        { class: "range" },
        el("th", { scope: "row" }, label),
        names.map((_, j) => el("td", {}, rangeInput(j, end))),
        el("td"),
      ),
    );
    const removers = el(
      "tr",
      {},
      el("td"),
      names.map((_, j) =>
        el(
          "td",
          {},
          remover(`remove-column-${j}`, `Remove channel ${j + 1}`, names.length < 2, () => removeColumn(j)),
        ),
      ),
      el("td"),
    );
    byId("matrix").replaceChildren(
      el("caption", { class: "hidden" }, "Rewards of a group: completions in rows, channels in columns"),
      el("thead", {}, el("tr", {}, el("td"), head, el("td"))),
      el("tbody", {}, body),
      el("tfoot", {}, foot, removers),
    );
  }

  function rebuild(focus) {
    matrix();
    cards();
    update();
    byId("add-row").disabled = cells.length >= MOST;
    byId("add-column").disabled = names.length >= MOST;
    if (focus && byId(focus)) byId(focus).focus();
  }

  /** What the reader should know about the matrix, such as invalid cells. */
  function status() {
    const clipped = names.filter((_, j) => rewards().some((row) => row[j] < ranges[j][0] || row[j] > ranges[j][1]));
    const wrong = cells.flatMap((row) => row.filter((typed) => parse(typed) === null));
    return [
      wrong.length ? `“${Dom.short(wrong[0], 20)}” is not a number and counts as missing.` : "",
      clipped.length
        ? `Rewards of ${Dom.names(clipped)} are outside of their range. The Tchebycheff rules clip them to it.`
        : "",
      cells.length < 2 ? "Advantages need at least two completions to compare." : "",
    ]
      .filter((entry) => entry)
      .join(" ");
  }

  function markCells() {
    cells.forEach((row, g) =>
      row.forEach((typed, j) => {
        byId(`cell-${g}-${j}`).setAttribute("aria-invalid", String(parse(typed) === null));
        byId(`cell-${g}-${j}`).classList.toggle("missing", Number.isNaN(parse(typed)));
      }),
    );
  }

  // ---- the rules ----

  function optionInput(method, [name, label, fits, placeholder]) {
    const value = record(options[method])[name] ?? (placeholder ? "" : Rules.METHODS[method].options[name]);
    const id = `option-${method}-${name}`;
    const input = el("input", {
      id,
      value,
      inputmode: "decimal",
      autocomplete: "off",
      size: 5,
      placeholder,
      oninput: (event) => setOption(event.target, method, name, fits),
    });
    return el("label", { for: id }, label, " ", input);
  }

  function setOption(input, method, name, fits) {
    const value = parse(input.value);
    const empty = input.value.trim() === "";
    const valid = isNumber(value) && fits(value);
    input.setAttribute("aria-invalid", String(!valid && !empty));
    options[method] = { ...options[method] };
    if (valid) options[method][name] = value;
    else if (empty) delete options[method][name];
    update();
  }

  function card([method, title, note]) {
    const rows = cells.map((_, g) => [
      String(g + 1),
      el(
        "span",
        { class: "measure" },
        el("span", { class: "bar", "aria-hidden": "true" }, el("span", { id: `bar-${method}-${g}` })),
        el("data", { id: `advantage-${method}-${g}` }),
      ),
    ]);
    const pick = el("input", {
      type: "radio",
      name: "rule",
      id: `rule-${method}`,
      checked: method === rule,
      onchange: () => {
        rule = method;
        update();
      },
    });
    const fields = list(OPTIONS[method]);
    return el(
      "div",
      { class: "rule-card", id: `card-${method}` },
      el("label", { class: "title" }, pick, el("span", {}, title)),
      el("p", { class: "muted" }, note),
      fields.length
        ? el(
            "p",
            { class: "options" },
            fields.map((option) => optionInput(method, option)),
          )
        : null,
      fillTable(el("table"), `Advantages under ${title}`, ["Completion", "Advantage"], rows),
    );
  }

  const cards = () => byId("cards").replaceChildren(...RULES.map(card));

  /** The largest possible advantage after whitening N values with ddof 1. A fixed scale keeps the bars comparable. */
  const bound = () => Math.max((cells.length - 1) / Math.sqrt(cells.length), 1);

  function updateCard(method, advantages) {
    byId(`card-${method}`).classList.toggle("chosen", method === rule);
    advantages.forEach((value, g) => {
      const bar = byId(`bar-${method}-${g}`);
      bar.style.setProperty("--value", (value / bound()).toFixed(4));
      bar.className = value < 0 ? "negative" : "positive";
      const shown = byId(`advantage-${method}-${g}`);
      shown.value = String(value);
      shown.textContent = signed(value);
    });
  }

  // ---- which channels decide under the chosen rule ----

  function decidesCell(result, g, j) {
    if (result.missing[g][j]) return el("td", { class: "muted" }, "missing");
    const share = result.responsibilities[g][j];
    const z = result.live[g][j] ? `z ${signed(result.z[g][j])}` : "dead";
    return shaded(share, 1, data(share, number(share)), el("span", { class: "interval" }, z));
  }

  function disagreement(all) {
    if (rule === "gdpo") return "";
    const differ = all.gdpo.advantages.flatMap((value, g) =>
      value * all[rule].advantages[g] < -1e-12 ? [String(g + 1)] : [],
    );
    if (!differ.length) return "Every completion has the same sign as under GDPO, the plain mean.";
    const which = `completion${differ.length > 1 ? "s" : ""} ${Dom.names(differ, 8)}`;
    return `Compared with GDPO, the plain mean, the sign changes for ${which}.`;
  }

  function decides(all) {
    const [, title] = RULES.find(([method]) => method === rule);
    byId("decides-h").textContent = `Which channels decide under ${title}`;
    byId("decides-lead").textContent =
      `Each cell shows the channel's responsibility for the completion's value, and its z-score below. ${disagreement(all)}`;
    const rows = cells.map((row, g) => [String(g + 1), ...row.map((_, j) => decidesCell(all[rule], g, j))]);
    fillTable(byId("decides"), "Responsibilities", ["Completion", ...names.map((name) => Dom.short(name, 24))], rows);
  }

  function update() {
    const all = results();
    markCells();
    byId("matrix-status").textContent = status();
    RULES.forEach(([method]) => updateCard(method, all[method].advantages));
    const beta = byId("option-rvpo_explicit-beta");
    beta.placeholder = String(Number((k / 2).toPrecision(4)));
    decides(all);
  }

  // ---- controls ----

  function setK(value, from) {
    const valid = Number.isFinite(value) && value >= 0;
    byId("k-number").setAttribute("aria-invalid", String(!valid));
    if (!valid) return;
    k = value;
    if (from !== "k") byId("k").value = String(value);
    if (from !== "k-number") byId("k-number").value = String(value);
    update();
  }

  function reset() {
    options = {};
    load(presets[Number(byId("preset").value)]);
  }

  function controls() {
    byId("preset").onchange = reset;
    byId("reset").onclick = reset;
    byId("add-row").onclick = () => {
      pushRow();
      rebuild(`cell-${cells.length - 1}-0`);
    };
    byId("add-column").onclick = () => {
      pushColumn();
      rebuild(`name-${names.length - 1}`);
    };
    byId("k").oninput = () => setK(Number(byId("k").value), "k");
    byId("k-number").oninput = (event) =>
      setK(event.target.value === "" ? NaN : Number(event.target.value), "k-number");
  }

  /** Keep the reader's matrix, unless the examples themselves have changed. */
  function render(examples) {
    if (JSON.stringify(examples) === given) return;
    given = JSON.stringify(examples);
    presets = [...examples, BLANK];
    Dom.fillSelect(
      byId("preset"),
      presets.map((preset, i) => [String(i), text(record(preset).name) || `example ${i + 1}`]),
      "0",
    );
    controls();
    load(presets[0]);
  }

  return { render };
})();
