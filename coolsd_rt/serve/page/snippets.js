// A request as a command for curl and as a program for the openai client of Python.
// Knows how a shell and Python quote. Does not know the page. The key itself never stands in them.

import { bodyOf } from "./api.js";

const OPENAI = new Set(["prompt", "model", "n", "size", "output_format", "quality", "user"]);

/** A file's name from a prompt: "red-apple". */
export function slug(prompt) {
  const words = prompt.normalize("NFKC").toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? [];
  return words.join("-").slice(0, 60).replace(/-$/, "") || "image";
}

function shell(text) {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

export function asCurl(request, url, withKey) {
  const lines = [
    `curl -sS ${shell(url)}`,
    ...(withKey ? [`-H "Authorization: Bearer $COOLSD_API_KEY"`] : []),
    `-H 'Content-Type: application/json'`,
    `-d ${shell(bodyOf(request))}`,
  ];
  const decode = `python3 -c 'import base64, json, sys; sys.stdout.buffer.write(base64.b64decode(json.load(sys.stdin)["data"][0]["b64_json"]))'`;
  return `${lines.join(" \\\n  ")} \\\n  | ${decode} > ${slug(request.prompt)}.png\n`;
}

/** A value as Python writes it. JSON's texts are Python's. */
function python(value) {
  if (value === null || value === undefined) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (Array.isArray(value)) return `[${value.map(python).join(", ")}]`;
  if (typeof value === "object") {
    return `{${Object.entries(value).map(([name, part]) => `${JSON.stringify(name)}: ${python(part)}`).join(", ")}}`;
  }
  return JSON.stringify(value);
}

export function asPython(request, base, withKey) {
  const { seed, ...others } = request;
  const named = Object.entries(others).filter(([name]) => OPENAI.has(name));
  const extra = Object.entries(others).filter(([name]) => !OPENAI.has(name));
  const parts = extra.map(([name, value]) => `"${name}": ${python(value)}`);
  if (seed !== undefined) parts.push(`"seed": ${seed}`);
  return [
    `import base64${withKey ? "\nimport os" : ""}`,
    "",
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url=${python(base)}, api_key=${withKey ? 'os.environ["COOLSD_API_KEY"]' : '"none"'})`,
    "answer = client.images.generate(",
    ...named.map(([name, value]) => `    ${name}=${python(value)},`),
    `    extra_body={${parts.join(", ")}},`,
    ")",
    `with open(${python(`${slug(request.prompt)}.png`)}, "wb") as file:`,
    "    file.write(base64.b64decode(answer.data[0].b64_json))",
    "",
  ].join("\n");
}
