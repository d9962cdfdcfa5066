/**
 * What somebody may have meant who mistyped a word.
 *
 * Idea: the nearest of the words there are, by how many letters must be changed, left out, added, or swapped with their
 * neighbour (the optimal string alignment distance); a word that begins one of them counts as near. Further than a third of
 * the word is no guess but noise.
 */

/** `"; did you mean X?"`, or nothing where no word is near. */
export function didYouMean(word: string, words: readonly string[]): string {
  const near = nearest(word, words);
  return near === undefined ? "" : `; did you mean ${near}?`;
}

/** The nearest of `words`, if one is near. */
export function nearest(word: string, words: readonly string[]): string | undefined {
  const asked = word.toLowerCase();
  const bare = asked.replace(/^-+/, "");
  const most = Math.max(1, Math.floor(bare.length / 3));
  let [best, least]: [string | undefined, number] = [undefined, most + 1];
  for (const one of words) {
    const steps = distance(asked, one);
    if (steps < least) [best, least] = [one, steps];
  }
  const begun = bare.length < 2 ? undefined : words.find((one) => one.replace(/^-+/, "").startsWith(bare));
  return begun ?? best;
}

/** Letters to change, leave out, add or swap, so that `a` becomes `b`. */
function distance(a: string, b: string): number {
  const rows = [Array.from({ length: b.length + 1 }, (_, j) => j)];
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const above = rows[i - 1]!;
      let steps = Math.min(above[j]! + 1, row[j - 1]! + 1, above[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1));
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1])
        steps = Math.min(steps, rows[i - 2]![j - 2]! + 1);
      row.push(steps);
    }
    rows.push(row);
  }
  return rows[a.length]![b.length]!;
}
