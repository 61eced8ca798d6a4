/** Up to three candidates that someone who typed `name` may have meant, the nearest first. */
export function nearest(name: string, candidates: readonly string[]): string[] {
  const wanted = name.toLowerCase();
  const limit = Math.max(1, Math.floor(wanted.length / 3)) + 0.5;
  return [...new Set(candidates)]
    .map((candidate) => ({ candidate, distance: distanceOf(wanted, candidate.toLowerCase(), limit) }))
    .filter(({ distance }) => distance <= limit)
    .sort((a, b) => a.distance - b.distance || (a.candidate < b.candidate ? -1 : 1))
    .slice(0, 3)
    .map(({ candidate }) => candidate);
}

/** `; did you mean …?` for the end of a message, or nothing. */
export function didYouMean(name: string, candidates: readonly string[]): string {
  const found = nearest(name, candidates).map((candidate) => `\`${candidate}\``);
  if (found.length === 0) return "";
  return `; did you mean ${found.length === 1 ? found[0] : `${found.slice(0, -1).join(", ")} or ${found.at(-1)}`}?`;
}

/** Edits from one to the other; where one begins with the other they count as just near enough. */
function distanceOf(name: string, candidate: string, limit: number): number {
  const short = Math.min(name.length, candidate.length);
  const prefix = short > 1 && name.slice(0, short) === candidate.slice(0, short);
  const apart = prefix ? limit : Number.POSITIVE_INFINITY;
  if (Math.abs(name.length - candidate.length) > limit) return apart;
  return Math.min(levenshtein(name, candidate), apart);
}

/** Insertions, deletions, replacements and swaps of neighbours, each one edit. */
function levenshtein(a: string, b: string): number {
  let before: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let row = 1; row <= a.length; row++) {
    const current = [row];
    for (let column = 1; column <= b.length; column++) {
      const replaced = at(last, column - 1) + (a[row - 1] === b[column - 1] ? 0 : 1);
      const swapped = row > 1 && column > 1 && a[row - 1] === b[column - 2] && a[row - 2] === b[column - 1];
      const swap = swapped ? at(before, column - 2) + 1 : Number.POSITIVE_INFINITY;
      current.push(Math.min(at(last, column) + 1, at(current, column - 1) + 1, replaced, swap));
    }
    before = last;
    last = current;
  }
  return at(last, b.length);
}

const at = (row: readonly number[], column: number) => row[column] ?? Number.POSITIVE_INFINITY;
