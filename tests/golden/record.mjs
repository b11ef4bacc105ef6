// Runs grammY's own storages and writes down, to the letter, what they store.
//   REDIS_URL=… POSTGRES_URL=… MONGODB_URL=… node record.mjs [redis] [psql] [mongodb] [file] [behaviour]
// Without names everything is recorded. The servers must be empty throwaways; what is written is removed.
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative, sep } from "node:path";
import { at, enhance, here, openers, readJson, versions } from "./stores.mjs";
import { enhanceCases, memoryCases, sessionCases } from "./behaviour.mjs";

const NOW = Date.UTC(2026, 0, 1);
const UNTIL_2100 = Date.UTC(2100, 0, 1) - NOW;
const PAST = 1000; // a second after NOW: over by the time anyone reads it

const cases = Object.fromEntries(readJson("cases.json").cases.map(({ key, value }) => [key, value]));
const enveloped = ["counter", "nested", "text", "date", "empty_object", "nulls", "own_version", "top_number", "top_list", "own_d"];

const groups = {
  neither: {},
  version: { migrations: [1, 2] },
  version_zero: { migrations: [0] },
  expiry: { millisecondsToLive: UNTIL_2100 },
  infinite: { millisecondsToLive: "Infinity" },
  both: { migrations: [1, 2], millisecondsToLive: UNTIL_2100 },
  expired: { millisecondsToLive: PAST },
};

const oddKeys = [
  "42", "-1001234567890", "42:7", "user:42", "7", "ключ", "naïve", "a😀", "😀a", "😀", "A", "a", " ", "a b", "a.b",
  "...x", "a*b?c", "a%2Fb", "a\\b", "a\"b'c", "tab\there", "'; DROP TABLE sessions; --", "CON", "k".repeat(240),
];

function* writes() {
  for (const [name, value] of Object.entries(cases)) yield { key: `plain:${name}`, value };
  yield { key: "plain:date_object", value: { started: new Date(NOW) } };
  yield { key: "plain:undefined", value: { gone: undefined, list: [undefined], kept: 1 } };
  yield { key: "plain:minus_zero", value: { zero: -0 } };
  yield { key: "plain:not_numbers", value: { nan: NaN, infinity: Infinity } };
  for (const [group, options] of Object.entries(groups)) {
    for (const name of group === "expired" ? ["counter"] : enveloped) {
      yield { key: `${group}:${name}`, value: cases[name], enhance: options };
    }
  }
  for (const key of oddKeys) yield { key, value: { count: 1 } };
}

/** Bare values, as from before a storage was enhanced, and what one reading leaves in their place. */
const legacyReads = { legacy_version: "version", legacy_expiry: "expiry", legacy_both: "both" };

async function fill(storage) {
  const entries = [];
  for (const { key, value, enhance: options } of writes()) {
    const entry = options === undefined ? { key } : { key, enhance: options };
    entries.push(entry);
    try {
      await at(NOW, () => enhance(storage, options).write(key, value));
      // an expired one is deleted when read: what would be read is told, not asked
      if (key.startsWith("expired:")) entry.missing = true;
      else if (key.startsWith("infinite:")) entry.value = value;
      else entry.value = await enhance(storage, options).read(key);
    } catch (error) {
      entry.error = error.code ?? error.message;
    }
  }
  for (const [prefix, group] of Object.entries(legacyReads)) {
    for (const name of ["counter", "nulls", "own_d"]) {
      const key = `${prefix}:${name}`;
      await storage.write(key, cases[name]);
      // the write-back of a read takes place after a first await, so the clock stays stopped throughout
      const real = Date.now;
      Date.now = () => NOW;
      try {
        entries.push({ key, enhance: groups[group], value: await enhance(storage, groups[group]).read(key) });
      } finally {
        Date.now = real;
      }
    }
  }
  return entries;
}

function save(name, recording) {
  const lines = JSON.stringify(recording, null, 1);
  writeFileSync(here(`grammy/${name}.json`), `${lines}\n`);
  console.log(`grammy/${name}.json: ${lines.length} characters`);
}

function refuseUnless(condition, what) {
  if (!condition) throw new Error(`${what} is not empty: record on throwaway servers only`);
}

const recorders = {
  async redis() {
    const store = await openers.redis();
    const { client } = store;
    try {
      refuseUnless((await client.dbsize()) === 0, "The Redis database");
      const commands = [];
      const send = client.sendCommand.bind(client);
      const storage = store.adapter();
      const entries = await fill(storage);
      for (const entry of entries) entry.raw = await client.get(entry.key);

      client.sendCommand = (command, ...rest) => {
        commands.push([command.name, ...command.args]);
        return send(command, ...rest);
      };
      await storage.write("42", { count: 1 });
      await storage.read("42");
      await storage.delete("42");
      const withTtl = store.adapter({ ttl: 3600 });
      await withTtl.write("ttl:counter", { count: 1 });
      client.sendCommand = send;
      const pttl = await client.pttl("ttl:counter");
      const ttl = { key: "ttl:counter", ttl: 3600, raw: await client.get("ttl:counter"), pttl_at_most: 3600000, pttl_seen: pttl > 3590000 && pttl <= 3600000 };
      const untimed = await client.pttl("plain:counter");
      const afterReading = await (async () => {
        await client.pexpire("ttl:counter", 5000);
        await withTtl.read("ttl:counter");
        return (await client.pttl("ttl:counter")) <= 5000;
      })();
      const zero = await store.adapter({ ttl: 0 }).write("ttl:zero", 1).catch((error) => error.message);
      await storage.write("ttl:counter", { count: 2 });
      const rewritten = await client.pttl("ttl:counter");
      const failures = {};
      for (const raw of ["", "{", "null"]) {
        await client.set("broken", raw);
        failures[raw] = await storage.read("broken").then((value) => ({ value }), (error) => ({ error: error.name }));
      }
      await client.set("dates", JSON.stringify(["2026-01-02T03:04:05Z", "2026-01-02T03:04:05.678", "2026-01-02", "2026-01-02T03:04:05+01:00"]));
      const parsed = await store.adapter({ autoParseDates: true }).read("dates");
      save("redis", {
        recorded_with: { ...versions("grammy", "@grammyjs/storage-redis", "ioredis"), now: NOW },
        entries,
        ttl: {
          ...ttl,
          pttl_without_ttl: untimed,
          reading_prolongs: !afterReading,
          pttl_after_a_write_without_ttl: rewritten,
          ttl_zero: zero,
        },
        commands,
        read_of_raw: failures,
        auto_parse_dates: parsed.map((item) => ({ date: item instanceof Date, value: item })),
      });
    } finally {
      await client.flushdb();
      await store.close();
    }
  },

  async psql() {
    const store = await openers.psql();
    const { client } = store;
    const rows = async (text, values) => (await client.query(text, values)).rows;
    const described = async (table) => ({
      columns: await rows(
        `SELECT column_name, data_type, udt_name, character_maximum_length, is_nullable, column_default
         FROM information_schema.columns WHERE table_name = $1 ORDER BY ordinal_position`, [table]),
      indexes: await rows("SELECT indexname, indexdef FROM pg_indexes WHERE tablename = $1", [table]),
      constraints: await rows(
        "SELECT conname, contype FROM pg_constraint WHERE conrelid = to_regclass($1)", [`"${table}"`]),
    });
    try {
      const there = await rows("SELECT 1 FROM information_schema.tables WHERE table_name IN ('sessions', 'BotSessions')");
      refuseUnless(there.length === 0, "The PostgreSQL database");
      const statements = [];
      const logging = { query: (text, values) => {
        statements.push({ text, ...(values === undefined ? {} : { values }) });
        return client.query(text, values);
      } };
      const logged = await store.adapter({ client: logging });
      await logged.write("42", { count: 1 });
      await logged.read("42");
      await logged.delete("42");

      const storage = await store.adapter();
      const entries = await fill(storage);
      for (const entry of entries) {
        entry.raw = (await rows("SELECT value FROM sessions WHERE key = $1", [entry.key]))[0]?.value ?? null;
      }
      const failures = {};
      for (const raw of ["", "{", "null", null]) {
        await client.query("DELETE FROM sessions WHERE key = 'broken'");
        await client.query("INSERT INTO sessions VALUES ('broken', $1)", [raw]);
        failures[raw === null ? "NULL" : raw] = await storage.read("broken").then((value) => ({ value }), (error) => ({ error: error.name }));
      }
      const nulKey = await storage.write("a\0b", 1).catch((error) => error.code ?? error.message);
      const mixed = await store.adapter({ tableName: "BotSessions" });
      await mixed.write("42", { count: 1 });
      const mixedDelete = await mixed.delete("42").then(() => "deleted", (error) => error.message);
      save("psql", {
        recorded_with: {
          ...versions("grammy", "@grammyjs/storage-psql", "pg"),
          server: (await rows("SHOW server_version"))[0].server_version,
          now: NOW,
        },
        table: "sessions",
        statements,
        ...(await described("sessions")),
        entries,
        read_of_raw: failures,
        write_under_a_key_with_nul: nulKey,
        mixed_case_table: { table: "BotSessions", ...(await described("BotSessions")), delete: mixedDelete },
      });
    } finally {
      await client.query('DROP TABLE IF EXISTS sessions; DROP TABLE IF EXISTS "BotSessions"');
      await store.close();
    }
  },

  async mongodb() {
    const store = await openers.mongodb();
    const { EJSON } = (await import("mongodb")).BSON;
    const { client, collection } = store;
    try {
      refuseUnless((await collection.countDocuments()) === 0, "The MongoDB collection");
      const storage = store.adapter();
      const commands = [];
      const listen = ({ commandName, command }) => {
        const { lsid, $db, $clusterTime, txnNumber, ...rest } = command;
        commands.push(JSON.parse(EJSON.stringify({ commandName, ...rest }, { relaxed: false })));
      };
      client.on("commandStarted", listen);
      await storage.write("42", { count: 1 });
      await storage.read("42");
      await storage.delete("42");
      client.off("commandStarted", listen);

      const entries = await fill(storage);
      for (const entry of entries) {
        const document = await collection.findOne({ key: entry.key }, { promoteValues: false });
        if (document === null) {
          entry.raw = null;
          continue;
        }
        const raw = JSON.parse(EJSON.stringify(document, { relaxed: false }));
        if (raw._id?.$oid) raw._id = { $oid: "0".repeat(24) };
        entry.raw = raw;
      }
      const infinite = await enhance(storage, groups.infinite).read("infinite:counter");
      const build = await store.db.admin().command({ buildInfo: 1 });
      save("mongodb", {
        recorded_with: {
          ...versions("grammy", "@grammyjs/storage-mongodb", "mongodb"),
          server: process.env.MONGODB_SERVER_NAME ?? "mongod",
          speaks: build.version,
          now: NOW,
        },
        notes: ["Each _id is an ObjectId that the server made; here it is zeros."],
        collection: collection.collectionName,
        indexes: await collection.indexes(),
        commands,
        entries,
        infinite_is_gone_after_a_read: infinite === undefined
          && (await collection.findOne({ key: "infinite:counter" })) === null,
      });
    } finally {
      await collection.drop().catch(() => {});
      await store.close();
    }
  },

  async file() {
    const store = await openers.file();
    const base = mkdtempSync(join(tmpdir(), "golden-"));
    const folder = join(base, "made", "sessions");
    try {
      const storage = store.adapter({ dirName: folder });
      const place = (key) => {
        const path = storage.resolveSessionPath(key);
        const within = relative(folder, path);
        if (within !== ".." && !within.startsWith(`..${sep}`)) return { path: within };
        return { outside: relative(base, path).startsWith(`..${sep}`) ? path : within };
      };
      const entries = await fill(storage);
      for (const entry of entries) {
        Object.assign(entry, place(entry.key));
        try {
          entry.raw = readFileSync(storage.resolveSessionPath(entry.key), "utf8");
        } catch {
          entry.raw = null;
        }
      }
      const tree = readdirSync(folder, { recursive: true, withFileTypes: true })
        .filter((item) => item.isFile())
        .map((item) => relative(folder, join(item.parentPath, item.name)).split(sep).join("/"))
        .sort();
      // named, not written: some of these leave the folder
      const paths = ["", ".", "..", "../x", "a/b", "a/bc", "/", "a/", "/etc/x", "a/..", "x".repeat(300)]
        .map((key) => ({ key, ...place(key) }));
      const slash = await storage.write("a/bc", 1).then(() => "written", (error) => error.code);
      const long = await storage.write("x".repeat(300), 1).then(() => "written", (error) => error.code);
      const failures = {};
      const broken = storage.resolveSessionPath("broken");
      await storage.write("broken", 1);
      for (const raw of ["", "{", "null", "\ufeff{}"]) {
        writeFileSync(broken, raw);
        failures[raw] = await storage.read("broken").then((value) => ({ value: value === undefined ? "undefined" : value }), (error) => ({ error: error.name }));
      }
      rmSync(broken);
      mkdirSync(broken);
      failures["a folder in its place"] = { value: String(await storage.read("broken")) };
      await storage.delete("broken");
      const left = readdirSync(join(folder, "en"));
      save("file", {
        recorded_with: { ...versions("grammy", "@grammyjs/storage-file"), now: NOW },
        entries,
        tree,
        paths,
        write_under: { "a/bc": slash, "300 times x": long },
        read_of_raw: failures,
        after_delete_the_sub_folder_holds: left,
      });
    } finally {
      rmSync(base, { recursive: true });
      await store.close();
    }
  },

  async behaviour() {
    const recorded_with = versions("grammy");
    save("enhance", { recorded_with, cases: await enhanceCases() });
    save("memory", { recorded_with, cases: memoryCases() });
    save("session", { recorded_with, cases: await sessionCases() });
  },
};

mkdirSync(here("grammy"), { recursive: true });
const chosen = process.argv.slice(2);
for (const name of chosen.length ? chosen : Object.keys(recorders)) {
  if (!(name in recorders)) throw new Error(`Nothing called ${name}; there are ${Object.keys(recorders).join(", ")}`);
  await recorders[name]();
}
