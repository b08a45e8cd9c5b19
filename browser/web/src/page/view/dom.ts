// Elements of the page. Text goes in as text, never as HTML: names and labels come from a bundle someone else made.

export function element<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  properties: Partial<HTMLElementTagNameMap[K]> = {},
  ...children: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

export function byId<T extends HTMLElement = HTMLElement>(id: string): T {
  return document.getElementById(id) as T; // index.html has them all
}

export const show = (id: string): void => byId(id).removeAttribute("hidden");

export const hide = (id: string): void => byId(id).setAttribute("hidden", "");

export const wordsOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

/** An error that is no result of a model: shown above everything. */
export function showProblem(error: unknown): void {
  document.body.dataset.state = "error";
  byId("problem").textContent = wordsOf(error);
  show("problem");
}
