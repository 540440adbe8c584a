"use strict";
/* Reads the data and fills the sections. Keeps theme, run and scroll position while a live page refreshes itself. */
const Page = (() => {
  const { byId, el, list, record, text } = Dom;
  const EVERY_MS = 5000;
  const THEME = "rvpo-report-theme";
  let report = {};
  let chosen = 0;
  let chosenName = null;
  let paused = false;

  // ---- theme ----

  const isDark = () =>
    (document.documentElement.dataset.theme ||
      (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";

  function remembered(value) {
    try {
      // a browser may refuse storage to a page opened from a file
      if (value) localStorage.setItem(THEME, value);
      return localStorage.getItem(THEME);
    } catch {
      return null;
    }
  }

  function applyTheme(theme) {
    if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
    byId("theme").setAttribute("aria-pressed", String(isDark()));
    Charts.redraw();
  }

  function startTheme() {
    applyTheme(remembered());
    byId("theme").onclick = () => {
      const theme = isDark() ? "light" : "dark";
      remembered(theme);
      applyTheme(theme);
    };
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => applyTheme());
  }

  // ---- sections ----

  const runs = () => list(report.runs).map(record);

  function navigation() {
    const sections = [...document.querySelectorAll("section[data-nav]")].filter((section) => !section.hidden);
    byId("sections").replaceChildren(
      ...sections.map((section) =>
        el("li", {}, el("a", { href: `#${section.id}`, id: `to-${section.id}` }, section.dataset.nav)),
      ),
    );
  }

  function choose(i) {
    chosen = Number(i);
    chosenName = record(runs()[chosen]).name ?? null;
    keepingPlace(draw);
  }

  function runControl(all) {
    byId("run-control").hidden = all.length < 2;
    Dom.fillSelect(
      byId("run"),
      all.map((run, i) => [String(i), Dom.short(run.name, 40) || `run ${i + 1}`]),
      String(chosen),
    );
    byId("run").onchange = (event) => choose(event.target.value);
  }

  function draw() {
    const all = runs();
    const run = record(all[chosen]);
    runControl(all);
    SamplesView.render(run);
    DiagnosisView.render(run);
    DiagnosisView.overview(report, chosen, choose);
    CardsView.render(run);
    CurvesView.render(run);
    ExplorationView.render(run);
    ComparisonView.render(report.comparison);
    MapsView.render(run);
    ReplayView.render(run);
    ExplorerView.render(list(report.presets));
    byId("made").textContent =
      `Made by rvpo ${text(report.version)}${report.generated ? `, ${text(report.generated)}` : ""}. Needs no network.`;
    navigation();
  }

  /** Redraw without changing the scroll position or the focus. */
  function keepingPlace(work) {
    const focused = document.activeElement && document.activeElement.id;
    const { scrollX, scrollY } = window;
    work();
    const again = focused && byId(focused);
    if (again && again !== document.activeElement) again.focus({ preventScroll: true });
    window.scrollTo(scrollX, scrollY);
  }

  /** The index of the run of that name. Runs may have been added, and names may be equal. */
  function placeOf(name) {
    if (record(runs()[chosen]).name === name) return chosen;
    return Math.max(
      runs().findIndex((run) => run.name === name),
      0,
    );
  }

  // ---- live ----

  /** The data of a page, given the beginning of its text; null if the data have not arrived completely. */
  function dataIn(page) {
    const start = page.indexOf('id="report-data">');
    const end = start < 0 ? -1 : page.indexOf("<" + "/script>", start);
    return end < 0 ? null : JSON.parse(page.slice(page.indexOf(">", start) + 1, end));
  }

  /** Read this page again, but only up to its data, without the megabytes of plotly after them. */
  async function fetchData() {
    const response = await fetch(location.pathname + location.search, { cache: "no-cache" });
    if (!response.ok) throw new Error(`the server answers ${response.status}`);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let page = "";
    for (let found = null; ;) {
      const { value, done } = await reader.read();
      page += value || "";
      if (done || page.length > 4096) found = dataIn(page);
      if (found) {
        reader.cancel();
        return found;
      }
      if (done) throw new Error("the page has no data");
    }
  }

  async function refresh() {
    if (paused || document.hidden) return;
    try {
      const fresh = await fetchData();
      byId("live-status").textContent = `live, ${text(fresh.generated)}`;
      if (paused || JSON.stringify(fresh) === JSON.stringify(report)) return;
      report = fresh;
      chosen = placeOf(chosenName);
      keepingPlace(draw);
    } catch (error) {
      byId("live-status").textContent = `not live: ${error.message}`;
    }
  }

  function wait() {
    setTimeout(async () => {
      await refresh();
      if (report.live === true) wait();
      else byId("live-status").textContent = "finished";
    }, EVERY_MS);
  }

  function startLive() {
    if (report.live !== true || !location.protocol.startsWith("http")) return;
    byId("live-control").hidden = false;
    byId("live-status").textContent = `live, ${text(report.generated)}`;
    byId("live-pause").onclick = () => {
      paused = !paused;
      byId("live-pause").setAttribute("aria-pressed", String(paused));
      if (!paused) refresh();
    };
    wait();
  }

  function start() {
    report = record(JSON.parse(byId("report-data").textContent));
    // Of several runs, choose the first one that has a remedy.
    chosen = Math.max(
      runs().findIndex((run) => list(run.cards).length > 0),
      0,
    );
    chosenName = record(runs()[chosen]).name ?? null;
    startTheme();
    draw();
    startLive();
  }

  return { start };
})();

Page.start();
