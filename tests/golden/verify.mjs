// Reads through the original packages what Python wrote.
//   node verify.mjs <store> <expected.json | ->
// Prints {"matched": n, "read": {key: value}, "mismatches": […]}; exits 1 on a mismatch, 2 on wrong use.
// An entry: {"key": …, "value": …} or {"key": …, "missing": true}, and as in write.mjs "enhance".
// Objects are compared without regard to the order of their keys, -0 equals 0.
import { enhance, openFromArguments } from "./stores.mjs";

function canonical(value) {
  return JSON.stringify(value, (_key, inner) =>
    inner !== null && typeof inner === "object" && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)))
      : inner);
}

const { store, storage, cases } = await openFromArguments("node verify.mjs <store> <expected.json | ->");
const read = {};
const mismatches = [];
try {
  for (const entry of cases) {
    const expected = entry.missing ? undefined : entry.value;
    let actual;
    try {
      actual = await enhance(storage, entry.enhance).read(entry.key);
    } catch (error) {
      mismatches.push({ key: entry.key, expected, error: String(error) });
      continue;
    }
    read[entry.key] = actual;
    if (canonical(actual) !== canonical(expected)) mismatches.push({ key: entry.key, expected, actual });
  }
} finally {
  await store.close();
}
console.log(JSON.stringify({ matched: cases.length - mismatches.length, read, mismatches }, null, 1));
process.exitCode = mismatches.length === 0 ? 0 : 1;
