/** Scripts of the build that are loaded on demand. */

/** Loads a script that lies beside the page; a second call does nothing. */
export function loadScript(file: string): Promise<void> {
  const known = document.querySelector<HTMLScriptElement>(`script[data-file="${file}"]`);
  if (known?.dataset["loaded"]) return Promise.resolve();
  const script = known ?? document.createElement("script");
  return new Promise((done, fail) => {
    script.addEventListener("load", () => {
      script.dataset["loaded"] = "yes";
      done();
    });
    script.addEventListener("error", () => {
      script.remove();
      fail(new Error(`${file} of this page cannot be loaded: is the folder whole?`));
    });
    if (known) return;
    script.dataset["file"] = file;
    script.src = file;
    document.head.append(script);
  });
}
