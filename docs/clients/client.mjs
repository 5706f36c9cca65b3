// Make a contact, wait for the result and for the change that it brings, and read it back: node client.mjs HOST PORT
// Needs: npm install mqtt
import { randomUUID } from "node:crypto";
import mqtt from "mqtt";

const ROOT = "blackroad/salesforce";
const [host, port] = process.argv.slice(2);
const inbox = `${ROOT}/reply/client-mjs`;
const client = await mqtt.connectAsync(`mqtt://${host}:${port}`, { protocolVersion: 5, clientId: "client-mjs" });
const waiting = new Map(); // correlation data -> what to do with an answer; true: it was the last one

client.on("message", (topic, payload, packet) => {
  const document = JSON.parse(payload);
  if (topic === inbox) {
    const key = packet.properties.correlationData.toString();
    if (waiting.get(key)?.(document)) waiting.delete(key);
  } else {
    const { version, operation, object, id, origin, command_id } = document.data;
    console.log("change", version > 0, operation, object, id, origin, command_id);
  }
});

// Resolves with the first answer that `last` takes for the last one.
function ask(topic, message, last = () => true) {
  const correlation = randomUUID();
  return new Promise((resolve, reject) => {
    waiting.set(correlation, (answer) => last(answer) && (resolve(answer), true));
    const properties = { responseTopic: inbox, correlationData: Buffer.from(correlation), contentType: "application/json" };
    client.publishAsync(`${ROOT}/${topic}`, JSON.stringify(message), { qos: 1, properties }).catch(reject);
  });
}

await client.subscribeAsync([inbox, `${ROOT}/change/Contact/#`], { qos: 1 });

const command = { command_id: `web-${randomUUID()}`, fields: { FirstName: "Ada", LastName: "Byron", Email: "ada@example.com" } };
const result = await ask("command/Contact/create", command, (answer) => answer.status !== "accepted");
console.log("result", result.status, result.id);

// The change comes on its own way; a query shows a command that is not in the record yet in `pending`.
let reply;
do {
  reply = await ask("query/Contact/get", { id: result.id, fields: ["Name", "Email"] });
} while (reply.ok && reply.records.length === 0);
console.log("record", reply.records[0].Name, reply.records[0].Email, reply.stream);

const count = await ask("query/Contact/count", { where: { LastName: "Byron" } });
console.log("count", count.count);
await client.endAsync();
