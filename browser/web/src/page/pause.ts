/** Let the page paint and answer clicks. A timer and not a microtask: those run before any of that. */
export const pause = (): Promise<void> => new Promise((resume) => setTimeout(resume));
