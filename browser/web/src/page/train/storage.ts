// What the page keeps in this browser's IndexedDB: labelled images, trained weights, and the record of what was sent.
// Everything belongs to one model, images also to its labels, by names that the caller chooses, and stays in the browser.

import type { Message } from "./federation";

export interface StoredSample {
  /** Set by the database. */
  id?: number;
  model: string;
  data: Float32Array<ArrayBuffer>;
  label: number;
  /** Held out: measured on, never trained on. */
  held: boolean;
}

export interface SentMessage extends Message {
  id?: number;
  model: string;
  /** Milliseconds since 1970. */
  when: number;
  /** undefined: no answer to it came. */
  counted?: boolean;
}

export interface KeptWeights {
  /** SHA-256 of the .tflite that they belong to. */
  file: string;
  row: Float32Array<ArrayBuffer>;
}

interface Stores {
  samples: StoredSample;
  sent: SentMessage;
  weights: KeptWeights & { model: string };
}

const VERSION = 1;

export class Storage {
  private constructor(
    private readonly database: IDBDatabase,
    private readonly model: string,
    private readonly images: string,
  ) {}

  /** Throws where the browser has no storage, as in some private windows. */
  static async open(model: string, images: string): Promise<Storage> {
    const request = indexedDB.open("edgeloop", VERSION);
    request.onupgradeneeded = () => {
      for (const name of ["samples", "sent"] as const) {
        const store = request.result.createObjectStore(name, { keyPath: "id", autoIncrement: true });
        store.createIndex("model", "model");
      }
      request.result.createObjectStore("weights", { keyPath: "model" });
    };
    const database = await done(request);
    database.onversionchange = () => database.close(); // a newer page in another tab
    return new Storage(database, model, images);
  }

  samples(): Promise<StoredSample[]> {
    return this.all("samples");
  }

  sent(): Promise<SentMessage[]> {
    return this.all("sent");
  }

  /** Returns it with its id. */
  async add<K extends "samples" | "sent">(name: K, value: Omit<Stores[K], "model" | "id">): Promise<Stores[K]> {
    const whole = { ...value, model: this.owner(name) } as Stores[K];
    const id = await done(this.store(name, "readwrite").add(whole));
    return { ...whole, id: Number(id) };
  }

  /** Write again what `add` returned, with changes. */
  async update(message: SentMessage): Promise<void> {
    await done(this.store("sent", "readwrite").put(message));
  }

  async remove(sample: StoredSample): Promise<void> {
    await done(this.store("samples", "readwrite").delete(sample.id!));
  }

  /** Remove all samples of this model and its labels. */
  async clear(): Promise<void> {
    for (const sample of await this.samples()) await this.remove(sample);
  }

  weights(): Promise<KeptWeights | undefined> {
    return done(this.store("weights", "readonly").get(this.model));
  }

  /** undefined: forget them. */
  async keepWeights(weights: KeptWeights | undefined): Promise<void> {
    const store = this.store("weights", "readwrite");
    if (weights) await done(store.put({ ...weights, model: this.model }));
    else await done(store.delete(this.model));
  }

  private all<K extends "samples" | "sent">(name: K): Promise<Stores[K][]> {
    return done(this.store(name, "readonly").index("model").getAll(this.owner(name)));
  }

  private owner(name: "samples" | "sent"): string {
    return name === "samples" ? this.images : this.model;
  }

  private store(name: keyof Stores, mode: IDBTransactionMode): IDBObjectStore {
    return this.database.transaction(name, mode).objectStore(name);
  }
}

const done = <T>(request: IDBRequest<T>): Promise<T> =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
