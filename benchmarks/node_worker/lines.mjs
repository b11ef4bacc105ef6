// The lines of a stream: one after the other, or each at once while `forEachLine` has a function.
export class Lines {
  #waiting = null;
  #ready = [];
  #each = null;
  #rest = "";
  #hasEnded = false;

  constructor(stream) {
    stream.setEncoding("utf8");
    stream.on("data", (text) => this.#take(text));
    stream.on("end", () => {
      this.#hasEnded = true;
      this.#waiting?.(null);
    });
  }

  /** The next line, or null when there are no more. */
  next() {
    if (this.#ready.length > 0) return Promise.resolve(this.#ready.shift());
    if (this.#hasEnded) return Promise.resolve(null);
    return new Promise((resolve) => {
      this.#waiting = resolve;
    });
  }

  forEachLine(each) {
    this.#each = each;
    if (each) while (this.#each && this.#ready.length > 0) each(this.#ready.shift());
  }

  #take(text) {
    const lines = (this.#rest + text).split("\n");
    this.#rest = lines.pop();
    for (const line of lines) {
      if (this.#each) {
        this.#each(line);
      } else if (this.#waiting) {
        const resolve = this.#waiting;
        this.#waiting = null;
        resolve(line);
      } else {
        this.#ready.push(line);
      }
    }
  }
}
