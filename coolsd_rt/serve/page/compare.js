// Says in words how two decoders of one prompt and seed compare. Says "slower" and "more" where it is so.
// Knows figures. Does not know the page.

import { counted, seconds } from "./dom.js";

const SAME = 1.02; // ratios nearer to 1 are not told apart: two runs of the same decoder differ by as much

/** "1.04x", "1.6x", "12x". */
function times(ratio) {
  return `${ratio.toFixed(ratio < 1.095 ? 2 : ratio < 9.95 ? 1 : 0)}x`;
}

function ratioWords(ratio, more, less, same) {
  if (ratio > SAME) return { side: 1, words: `${times(ratio)} ${more}` };
  if (ratio < 1 / SAME) return { side: -1, words: `${times(1 / ratio)} ${less}` };
  return { side: 0, words: same };
}

/** The outcome: {headline, detail, caveat}. together: both ran at the same time and shared the machine. */
export function outcome(plain, cool, together) {
  const steps = ratioWords(plain.rounds / cool.rounds, "fewer steps", "more steps", "as many steps");
  const time = ratioWords(plain.seconds / cool.seconds, "faster", "slower", "about as fast");
  const joined = steps.side * time.side < 0 ? "but" : "and";
  return {
    headline: `COOL-SD: ${steps.words}, ${joined} ${time.words}.`,
    detail:
      `${counted(cool.rounds, "step")} of the large model instead of ${plain.rounds}, ` +
      `${seconds(cool.seconds)} s instead of ${seconds(plain.seconds)} s.`,
    caveat: together
      ? "Both shared this machine, and unfinished images were decoded to be shown: alone, each takes fewer seconds."
      : "One ran after the other, each with the machine to itself unless others use this server.",
  };
}

/** Rounds by number of accepted drafts: [{accepted, rounds}], from 0 to the most drafts of a round. */
export function histogram(accepted, numDrafts) {
  const most = Math.max(0, ...numDrafts, ...accepted);
  const counts = new Array(most + 1).fill(0);
  for (const count of accepted) counts[count] += 1;
  return counts.map((rounds, count) => ({ accepted: count, rounds }));
}

/** Tokens per round, including the one that the target decides itself. */
export function acceptLength(accepted) {
  return accepted.length ? 1 + accepted.reduce((a, b) => a + b, 0) / accepted.length : NaN;
}
