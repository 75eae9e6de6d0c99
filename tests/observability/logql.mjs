// Takes LogQL apart by the grammar of Grafana's own editor: reads a JSON array of queries, writes one of
//   { errors: [text after which it went wrong], stream: [labels that select], fields: {label: field of the record},
//     made: [labels that label_format makes], used: [labels that filters, groups and unwrap name],
//     values: [[label, value that a matcher compares it with]] }
//   node logql.mjs FOLDER_WITH_NODE_MODULES <queries.json
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { resolve } from "node:path";

const { parser } = createRequire(resolve(process.argv[2], "package.json"))("@grafana/lezer-logql");

function read(query) {
  const seen = { errors: [], stream: [], fields: {}, made: [], used: [], values: [] };
  const text = (node) => query.slice(node.from, node.to);
  const under = (node, name) => node.parent && (node.parent.name === name || under(node.parent, name));
  parser.parse(query).iterate({
    enter({ node }) {
      if (node.type.isError) seen.errors.push(query.slice(0, node.from).slice(-40));
      if (node.name === "LabelExtractionExpression") {
        seen.fields[text(node.firstChild)] = text(node.lastChild).slice(1, -1);
      }
      if (node.name === "LabelFormatMatcher") {
        seen.made.push(text(node.firstChild));
        seen.used.push(...[...text(node.lastChild).matchAll(/\.(\w+)/g)].map((found) => found[1]));
      }
      if (node.name === "Matcher" && node.lastChild.name === "String") {
        for (const value of text(node.lastChild).slice(1, -1).split("|")) seen.values.push([text(node.firstChild), value]);
      }
      if (node.name !== "Identifier") return;
      if (under(node, "Selector")) seen.stream.push(text(node));
      else if (["Matcher", "Labels", "UnwrapExpr"].includes(node.parent.name)) seen.used.push(text(node));
    },
  });
  return seen;
}

console.log(JSON.stringify(JSON.parse(readFileSync(0)).map(read)));
