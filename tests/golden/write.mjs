// Writes entries through the original packages, for Python to read.
//   node write.mjs <store> <entries.json | ->
// An entry: {"key": …, "value": …, "enhance"?: {"migrations"?: [1, 2], "millisecondsToLive"?: 60000}}
import { enhance, openFromArguments } from "./stores.mjs";

const { store, storage, cases } = await openFromArguments("node write.mjs <store> <entries.json | ->");
try {
  for (const entry of cases) await enhance(storage, entry.enhance).write(entry.key, entry.value);
} finally {
  await store.close();
}
