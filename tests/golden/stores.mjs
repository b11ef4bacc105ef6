// Opens grammY's own storage adapters over servers named by environment variables.
import { enhanceStorage } from "grammy";
import { readFileSync } from "node:fs";

export const here = (name) => new URL(name, import.meta.url);

export const readJson = (name) => JSON.parse(readFileSync(here(name), "utf8"));

/** The versions really installed, as they go into the recordings. */
export function versions(...names) {
  return Object.fromEntries(
    names.map((name) => [name, readJson(`node_modules/${name}/package.json`).version]),
  );
}

function required(variable) {
  const value = process.env[variable];
  if (!value) throw new Error(`Set ${variable}`);
  return value;
}

/**
 * Migration n of every recording appends n to the list `path` of the data, so
 * that a result shows which migrations ran and in what order.
 */
export function migrationsFor(numbers) {
  const step = (n) => (old) => ({ ...old, path: [...(old.path ?? []), n] });
  return Object.fromEntries(numbers.map((n) => [n, step(n)]));
}

/** `options` as JSON can hold them: {migrations: [1, 2], millisecondsToLive: 1000 | "Infinity"}. */
export function enhance(storage, options) {
  if (options === undefined) return storage;
  const { migrations, millisecondsToLive } = options;
  return enhanceStorage({
    storage,
    ...(migrations === undefined ? {} : { migrations: migrationsFor(migrations) }),
    ...(millisecondsToLive === undefined
      ? {}
      : { millisecondsToLive: millisecondsToLive === "Infinity" ? Infinity : millisecondsToLive }),
  });
}

/**
 * Calls `run` with the clock stopped at `now`. The clock is given back before
 * anything is awaited: enhanceStorage reads it synchronously on a write, and
 * the drivers never see the stopped one.
 */
export function at(now, run) {
  const real = Date.now;
  Date.now = () => now;
  try {
    return run();
  } finally {
    Date.now = real;
  }
}

export const openers = {
  async redis() {
    const { RedisAdapter } = await import("@grammyjs/storage-redis");
    const { default: Redis } = await import("ioredis");
    const client = new Redis(required("REDIS_URL"));
    return {
      client,
      adapter: (options = {}) => new RedisAdapter({ instance: client, ...options }),
      close: () => client.quit(),
    };
  },
  async psql() {
    const { PsqlAdapter } = await import("@grammyjs/storage-psql");
    const { default: pg } = await import("pg");
    const client = new pg.Client({ connectionString: required("POSTGRES_URL") });
    await client.connect();
    return {
      client,
      adapter: (options = {}) =>
        PsqlAdapter.create({ tableName: process.env.POSTGRES_TABLE ?? "sessions", client, ...options }),
      close: () => client.end(),
    };
  },
  async mongodb() {
    const { MongoDBAdapter } = await import("@grammyjs/storage-mongodb");
    const { MongoClient } = await import("mongodb");
    const client = new MongoClient(required("MONGODB_URL"), { monitorCommands: true });
    await client.connect();
    const db = client.db(process.env.MONGODB_DATABASE);
    const collection = db.collection(process.env.MONGODB_COLLECTION ?? "sessions");
    return {
      client,
      db,
      collection,
      adapter: () => new MongoDBAdapter({ collection }),
      close: () => client.close(),
    };
  },
  async file() {
    const { FileAdapter } = await import("@grammyjs/storage-file");
    return {
      adapter: (options = {}) =>
        new FileAdapter({ dirName: options.dirName ?? required("FILE_DIR") }),
      close: async () => {},
    };
  },
};

/** What the reading and writing scripts are given: a store's name and entries to go through. */
export async function openFromArguments(usage) {
  const [name, path] = process.argv.slice(2);
  if (!(name in openers) || !path) {
    console.error(`usage: ${usage}\nstores: ${Object.keys(openers).join(", ")}`);
    process.exit(2);
  }
  const { cases } = JSON.parse(readFileSync(path === "-" ? 0 : path, "utf8"));
  const store = await openers[name]();
  return { store, storage: await store.adapter(), cases };
}
