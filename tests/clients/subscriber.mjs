// A subscriber as its users write it: `node subscriber.mjs ORDER`, ORDER being JSON; a line of JSON per event.
import PubSubApiClient from 'salesforce-pubsub-api-client';

const order = JSON.parse(process.argv[2]);
const quiet = { debug() {}, info() {}, warn: console.error, error: console.error };
const client = new PubSubApiClient({ ...order.login, rejectUnauthorizedSsl: false }, quiet);
const plain = (key, value) => (typeof value === 'bigint' ? Number(value) : value);
const say = (line) => console.log(JSON.stringify(line, plain));

let taken = 0;
const told = (subscription, kind, data) => {
    if (kind === 'event') {
        taken += 1;
        say({ kind, replayId: data.replayId, payload: data.payload });
        if (taken === order.count) process.stdout.write('', () => process.exit());
    } else if (kind === 'lastEvent') {
        // The credit is used up: more has to be asked for, unless that was all.
        say({ kind });
        if (taken < order.count) client.requestAdditionalEvents(subscription.topicName, order.step);
    } else {
        say({ kind, said: data?.message ?? null });
    }
};

await client.connect();
if (order.after === null) client.subscribeFromEarliestEvent(order.topic, told, order.step);
else client.subscribeFromReplayId(order.topic, told, order.step, order.after);
say({ kind: 'subscribing' });
