// Vite: a file as a data: address in the program itself.
declare module "*?url&inline" {
  const url: string;
  export default url;
}
