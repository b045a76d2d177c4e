// Server-sent events from the body of a fetch, which EventSource cannot do for a POST.
// Knows the format: lines that end in \n, \r or \r\n, events that end at an empty line, comments. A chunk may end
// anywhere, also between \r and \n or inside a character. Does not know what the data mean.

/** Returns a function that takes the next piece of text and returns the data of the events that it completes. */
export function makeParser() {
  let rest = "";
  let data = [];
  let afterReturn = false; // the last character was \r: a \n that follows belongs to it
  return (text) => {
    const found = [];
    if (afterReturn && text.startsWith("\n")) text = text.slice(1);
    else if (text === "") return found;
    afterReturn = text === "" ? false : text.endsWith("\r");
    const lines = (rest + text).split(/\r\n|\r|\n/);
    rest = lines.pop();
    for (const line of lines) {
      if (line === "") {
        if (data.length) found.push(data.join("\n"));
        data = [];
      } else if (line === "data" || line.startsWith("data:")) {
        const value = line.slice(5);
        data.push(value.startsWith(" ") ? value.slice(1) : value);
      }
    }
    return found;
  };
}

/** The data of each event of a body (a ReadableStream of bytes), until the body ends. */
export async function* eventsOf(body) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  const parse = makeParser();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      yield* parse(decoder.decode(value, { stream: true }));
    }
    yield* parse(decoder.decode());
  } finally {
    reader.cancel().catch(() => {}); // whoever stops listening frees the slot
  }
}
