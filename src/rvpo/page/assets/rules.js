"use strict";
/*
 * The rules of rvpo in JavaScript: Rules.advantages(rewards, method, options) for ONE group of completions.
 *
 * A translation by hand of rvpo.advantages(rewards, num_generations=N, method=..., ...) with its defaults (eps 1e-4,
 * ddof 1, rtol 1e-6), in double precision. tests/page/browser compares both to 1e-9. It follows src/rvpo/core file by
 * file: normalize.py, aggregate.py, and methods/. Change those first. Methods that follow the run from batch to batch,
 * such as lift, are left out: one group does not show what they do.
 *
 * rewards is N rows of M numbers; NaN, null or undefined is missing. `live` is true where the channel ranks the group.
 */
const Rules = (() => {
  const EPS = 1e-4;
  const DDOF = 1;
  const RTOL = 1e-6;
  const TIE = 1e-6;

  const zeros = (n) => new Array(n).fill(0);
  const sum = (values) => values.reduce((total, value) => total + value, 0);
  const dot = (a, b) => a.reduce((total, value, i) => total + value * b[i], 0);
  const column = (rows, j) => rows.map((row) => row[j]);
  const map2 = (rows, change) => rows.map((row, g) => row.map((value, j) => change(value, g, j)));

  /** Scale shares to sum to 1; zeros stay zero. */
  function normalised(shares) {
    const total = sum(shares);
    return shares.map((share) => share / (total === 0 ? 1 : total));
  }

  // ---- normalize.py: z-scores of one channel within the group ----

  /** Values with NaN = missing -> {z, live, mean, std}; z is 0 where dead and NaN where missing. */
  function zscore(values, eps) {
    const scored = values.filter((value) => !Number.isNaN(value));
    const n = scored.length;
    const low = n ? Math.min(...scored) : 0;
    const high = n ? Math.max(...scored) : 0;
    const magnitude = Math.max(Math.abs(low), Math.abs(high), eps);
    const live = n > 1 && high - low > RTOL * magnitude;
    // Subtracting the minimum first keeps the digits of large rewards that are close together.
    const shift = sum(scored.map((value) => value - low)) / Math.max(n, 1);
    const deviations = values.map((value) => value - low - shift);
    const squares = deviations.filter((value) => !Number.isNaN(value)).map((value) => value * value);
    const std = live ? Math.sqrt(sum(squares) / Math.max(n - DDOF, 1)) : 0;
    const z = deviations.map((value) => (Number.isNaN(value) ? NaN : live ? value / (std + eps) : 0));
    return { z, live, mean: low + shift, std };
  }

  /** What the rules need of a group: z-scores, states and statistics of every channel. */
  function scoreGroup(rewards, ranges) {
    const channels = rewards[0].length;
    const scores = zeros(channels).map((_, j) => zscore(column(rewards, j), EPS));
    const missing = map2(rewards, (value) => Number.isNaN(value));
    return {
      rewards,
      missing,
      ranges: ranges || zeros(channels).map(() => null),
      z: map2(rewards, (_, g, j) => scores[j].z[g]),
      live: map2(rewards, (_, g, j) => scores[j].live && !missing[g][j]),
      mean: scores.map((score) => score.mean),
      std: scores.map((score) => score.std),
    };
  }

  /** Rewards on their declared scale, in [0, 1]; NaN where missing. */
  function attained(group) {
    return map2(group.rewards, (value, _, j) => {
      const [low, high] = group.ranges[j] || [0, 1];
      const share = (value - low) / (high - low);
      if (!group.ranges[j] && (share < 0 || share > 1)) {
        throw new RangeError(`column ${j + 1} has a reward of ${value} outside [0, 1] and no range`);
      }
      return Number.isNaN(share) ? NaN : Math.min(Math.max(share, 0), 1);
    });
  }

  // ---- aggregate.py: z-scores and shares of one completion -> [aggregate, responsibilities] ----

  const mean = (z, p) => [dot(p, z), p];

  function lowestOf(z, p) {
    const taking = z.filter((_, j) => p[j] > 0);
    const lowest = taking.length ? Math.min(...taking) : 0;
    return [lowest, z.map((value, j) => (p[j] > 0 ? value - lowest : 0))];
  }

  function hardMin(z, p) {
    const [lowest, above] = lowestOf(z, p);
    return [lowest, normalised(p.map((share, j) => (above[j] <= TIE ? share : 0)))];
  }

  function softMin(z, p, k) {
    if (k === 0) return mean(z, p);
    if (k === Infinity) return hardMin(z, p);
    const [lowest, above] = lowestOf(z, p);
    const odds = p.map((share, j) => share * Math.exp(-k * above[j]));
    const total = sum(odds);
    const near = Math.log1p(Math.max(sum(p.map((share, j) => share * Math.expm1(-k * above[j]))), -0.5));
    const far = Math.log(total > 0 ? total : 1);
    return [lowest - (total > 0 && total < 0.5 ? far : near) / k, normalised(odds)];
  }

  function explicit(z, p, beta) {
    const average = dot(p, z);
    const deviation = z.map((value) => value - average);
    const variance = sum(p.map((share, j) => share * deviation[j] ** 2));
    return [average - beta * variance, p.map((share, j) => share * (1 - 2 * beta * deviation[j]))];
  }

  // ---- methods/rvpo.py, gdpo.py, grpo.py ----

  /** Equal shares of the channels that take part: only live channels if `drop`, else all that are scored. */
  function shares(group, drop) {
    return map2(group.rewards, (_, g, j) => ((drop ? group.live[g][j] : !group.missing[g][j]) ? 1 : 0)).map(normalised);
  }

  /** Apply a rule to z-scores. A row takes part if one of its channels has a share. */
  function overZ(group, drop, rule) {
    const p = shares(group, drop);
    const z = map2(group.z, (value, g, j) => (p[g][j] > 0 ? value : 0));
    const results = z.map((row, g) => rule(row, p[g]));
    return {
      aggregated: results.map((result) => result[0]),
      responsibilities: results.map((result) => result[1]),
      takesPart: p.map((row) => row.some((share) => share > 0)),
    };
  }

  /** Sum of raw rewards. A missing reward adds nothing. */
  function weightedSum(group) {
    const aggregated = group.rewards.map((row, g) => sum(row.map((value, j) => (group.missing[g][j] ? 0 : value))));
    const spread = group.live.map((row) => row.map((live, j) => (live ? group.std[j] : 0)));
    return {
      aggregated,
      responsibilities: spread.map(normalised),
      takesPart: group.missing.map((row) => row.some((missing) => !missing)),
    };
  }

  // ---- methods/tchebycheff.py ----

  /** Distances to the ideal. A missing reward counts as its channel's mean. */
  function shortfalls(group) {
    const x = attained(group);
    const means = group.mean.map((_, j) => {
      const scored = column(x, j).filter((value) => !Number.isNaN(value));
      return scored.length ? sum(scored) / scored.length : NaN;
    });
    const taking = means.map((value) => (Number.isNaN(value) ? 0 : 1));
    const count = sum(taking);
    const p = normalised(taking);
    const short = map2(x, (value, _, j) => (taking[j] ? 1 - (Number.isNaN(value) ? means[j] : value) : 0));
    return { p, count, short, distance: map2(short, (value, _, j) => count * p[j] * value) };
  }

  /** Add the responsibilities to a scalarisation. In units of z, a channel counts by its spread on its scale. */
  function ofScale(group, aggregated, slopes) {
    const width = group.std.map((_, j) => (group.ranges[j] ? group.ranges[j][1] - group.ranges[j][0] : 1));
    const responsibilities = map2(slopes, (slope, g, j) => (group.live[g][j] ? (slope * group.std[j]) / width[j] : 0));
    return {
      aggregated,
      responsibilities: responsibilities.map(normalised),
      takesPart: group.missing.map((row) => row.some((missing) => !missing)),
    };
  }

  function tchebycheff(group, rho) {
    const { p, count, short, distance } = shortfalls(group);
    const worst = distance.map((row) =>
      hardMin(
        row.map((value) => -value),
        p,
      ),
    );
    const values = worst.map(([value], g) => value - rho * dot(p, short[g]));
    const slopes = worst.map(([, tied]) => normalised(p.map((share, j) => share * (count * tied[j] + rho))));
    return ofScale(group, values, slopes);
  }

  function smoothTchebycheff(group, mu) {
    const { p, count, distance } = shortfalls(group);
    const soft = distance.map((row) =>
      softMin(
        row.map((value) => -value),
        p,
        1 / mu,
      ),
    );
    const values = soft.map(([value]) => value - mu * Math.log(Math.max(count, 1)));
    const slopes = soft.map(([, decides]) => normalised(p.map((share, j) => share * decides[j])));
    return ofScale(group, values, slopes);
  }

  // ---- advantages.py ----

  /** Options and their defaults, as in rvpo.core.methods. */
  const METHODS = {
    grpo: { options: {}, run: (group) => weightedSum(group) },
    gdpo: { options: {}, run: (group) => overZ(group, false, mean) },
    rvpo: { options: { k: 1 }, run: (group, o) => overZ(group, true, (z, p) => softMin(z, p, o.k)) },
    rvpo_explicit: { options: { beta: 0.5 }, run: (group, o) => overZ(group, true, (z, p) => explicit(z, p, o.beta)) },
    hard_min: { options: {}, run: (group) => overZ(group, true, hardMin) },
    tchebycheff: { options: { rho: 0.05 }, run: (group, o) => tchebycheff(group, o.rho) },
    smooth_tchebycheff: { options: { mu: 0.1 }, run: (group, o) => smoothTchebycheff(group, o.mu) },
  };

  /** Number of channels scored on a completion, averaged over the rows that take part. */
  function totalWeight(group, takesPart) {
    const totals = group.missing.filter((_, g) => takesPart[g]).map((row) => row.filter((missing) => !missing).length);
    return sum(totals) / Math.max(totals.length, 1) || 1;
  }

  /**
   * One group's rewards (N, M) -> {advantages, aggregated, responsibilities, z, live, missing, takesPart}.
   * options: the method's own, and `ranges`, M pairs [lowest, highest] or null for [0, 1].
   */
  function advantages(rewards, method, options = {}) {
    const { options: defaults, run } = METHODS[method];
    const numbers = map2(rewards, (value) => (typeof value === "number" ? value : NaN));
    const group = scoreGroup(numbers, options.ranges);
    const outcome = run(group, { ...defaults, ...options });
    const eps = method === "grpo" ? EPS : EPS / totalWeight(group, outcome.takesPart);
    const counted = outcome.aggregated.map((value, g) => (outcome.takesPart[g] ? value : NaN));
    const whitened = zscore(counted, eps).z.map((value) => (Number.isNaN(value) ? 0 : value));
    return { advantages: whitened, ...outcome, z: group.z, live: group.live, missing: group.missing };
  }

  return { METHODS, advantages };
})();

if (typeof module !== "undefined") module.exports = Rules;
