// The bridge that people write: every change event that jsforce receives goes to the broker. node bridge.mjs ORG PORT
import jsforce from "jsforce";
import { StreamingExtension } from "jsforce/lib/api/streaming.js";
import mqtt from "mqtt";

const CHANNEL = "/data/ChangeEvents";
const NEW_EVENTS = -1;
const [instanceUrl, port] = process.argv.slice(2);
const broker = await mqtt.connectAsync(`mqtt://127.0.0.1:${port}`, { clientId: "bridge" });
const org = new jsforce.Connection({ instanceUrl, accessToken: "of the feed, which asks for none", version: "58.0" });
const stream = org.streaming.createClient([new StreamingExtension.Replay(CHANNEL, NEW_EVENTS)]);
await stream.subscribe(CHANNEL, (event) => {
  const { entityName, changeType, recordIds } = event.payload.ChangeEventHeader;
  const topic = `blackroad/salesforce/change/${entityName}/${changeType.toLowerCase()}/${recordIds[0]}`;
  broker.publish(topic, JSON.stringify(event), { qos: 1 });
});
console.log("subscribed");
