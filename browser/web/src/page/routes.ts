// The routes that other folders mount on the page's server (src/edgeloop/http/routes.py). A static site has none.

/** Whether the page's server has this route. The server writes their names into index.html. */
export const hasRoute = (name: string): boolean =>
  (document.querySelector<HTMLMetaElement>('meta[name="edgeloop-routes"]')?.content ?? "").split(" ").includes(name);

/** Whether the page is a static site: `browse --export` says so in index.html. */
export const isExported = (): boolean => document.querySelector('meta[name="edgeloop-exported"]') !== null;

/** The address of a route's request: `fetch(routeUrl("federate", "join"), ...)`. */
export const routeUrl = (name: string, path: string): string => new URL(`api/${name}/${path}`, document.baseURI).href;
