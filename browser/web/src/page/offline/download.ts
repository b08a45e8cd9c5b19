// Files of the bundle: fetched with their progress shown, and checked against the manifest's SHA-256.

import type { Manifest } from "../bundle";
import { again, serverAnswered, serverIsGone } from "./presence";

const SHOWN_BYTES = 2e6; // what arrives at once needs no line of its own

/** The whole file. Throws when the server does not answer, has no such file, or sends other bytes than the manifest says. */
export async function bundleFile(manifest: Manifest, file: string): Promise<Uint8Array<ArrayBuffer>> {
  const response = await request(urlOf(file));
  if (!response.ok) throw new Error(`the server answered ${response.status} for ${file}`);
  const listed = manifest.files[file];
  const bytes = await read(response, file, listed?.bytes);
  if (listed && (bytes.length !== listed.bytes || ((await sha256(bytes)) ?? listed.sha256) !== listed.sha256))
    throw new Error(
      `${file} is damaged: it is not the file that the manifest lists. Convert the model again, or copy the bundle again`,
    );
  return bytes;
}

export const urlOf = (file: string): string =>
  new URL(`bundle/${file.split("/").map(encodeURIComponent).join("/")}`, document.baseURI).href;

/** Fetch from the page's server. Throws in words when it does not answer; the page says so as well. */
export async function request(url: string): Promise<Response> {
  const response = await fetch(url).catch(() => {
    serverIsGone();
    throw new Error(`the server of this page does not answer. ${again()}, then reload the page`);
  });
  serverAnswered(response);
  return response;
}

/** Into memory once: a large file is not held in pieces and whole. `expected`: its size by the manifest. */
async function read(response: Response, file: string, expected = 0): Promise<Uint8Array<ArrayBuffer>> {
  if (expected < SHOWN_BYTES || !response.body) return new Uint8Array(await response.arrayBuffer());
  const bytes = new Uint8Array(expected);
  const line = progressLine();
  try {
    let done = 0;
    for (const reader = response.body.getReader(); ; ) {
      const { value } = await reader.read();
      if (!value) return bytes.subarray(0, done);
      if (done + value.length > expected) {
        await reader.cancel();
        return bytes.subarray(0, 0); // longer than the manifest says
      }
      bytes.set(value, done);
      done += value.length;
      line.textContent = `Loading ${file}: ${megabytes(done)} of ${megabytes(expected)} MB`;
    }
  } finally {
    line.remove();
  }
}

function progressLine(): HTMLElement {
  const line = document.createElement("p");
  line.className = "download";
  line.setAttribute("role", "status");
  document.querySelector("main")?.prepend(line);
  return line;
}

const megabytes = (bytes: number): string => (bytes / 1e6).toFixed(1);

/** In hexadecimal; undefined over plain http from another machine, where browsers do not compute it. */
export async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<string | undefined> {
  if (!globalThis.crypto?.subtle) return undefined;
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return [...hash].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
