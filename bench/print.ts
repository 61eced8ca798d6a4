// How the bench prints: a line for each measurement, with its target and whether that holds.

export function line(title: string, text: string, target?: string, holds?: boolean): void {
  const judgement = target === undefined ? "" : `; target: ${target}, ${holds ? "holds" : "DOES NOT HOLD"}`;
  console.log(`${title.padEnd(38)} ${text}${judgement}`);
}

export const time = (seconds: number) =>
  seconds < 1 ? `${(seconds * 1000).toFixed(0)} ms` : `${seconds.toFixed(2)} s`;
