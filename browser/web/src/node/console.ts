// Imported first: stdout carries frames, so all that TF.js or anyone prints goes to stderr.

console.log = console.info = console.debug = console.warn = console.error;
