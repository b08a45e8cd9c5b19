// Vite: a file as its address, or as a data: address in the program itself.
declare module "*?url" {
  const url: string;
  export default url;
}
declare module "*?url&inline" {
  const url: string;
  export default url;
}
