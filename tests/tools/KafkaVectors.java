import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.HexFormat;
import java.util.NavigableMap;
import java.util.Random;
import java.util.TreeMap;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.message.ApiMessageType;
import org.apache.kafka.common.protocol.ApiMessage;
import org.apache.kafka.common.protocol.ByteBufferAccessor;
import org.apache.kafka.common.protocol.ObjectSerializationCache;
import org.apache.kafka.common.protocol.types.BoundField;
import org.apache.kafka.common.protocol.types.Schema;
import org.apache.kafka.common.protocol.types.Struct;
import org.apache.kafka.common.protocol.types.TaggedFields;
import org.apache.kafka.common.protocol.types.Type;
import org.apache.kafka.common.record.MemoryRecords;

/**
 * Prints Kafka messages as Apache Kafka's own client writes them, for codec/kafka_schema_test.c:
 * one line "API request|response VERSION HEX" per message; each API, direction and version once with
 * everything filled in and once as empty as it may be. The values are the same on every run. It
 * made spec/kafka/vectors.txt with kafka-clients 4.1.0 from Maven Central and what that depends on:
 *
 * <pre>java -cp 'JARS/*' tests/tools/KafkaVectors.java $(tools/gen/kafka.py --versions)</pre>
 */
public class KafkaVectors {
    private final Random random;
    private final boolean full;

    KafkaVectors(long seed, boolean full) {
        this.random = new Random(seed);
        this.full = full;
    }

    public static void main(String[] arguments) {
        for (String argument : arguments) {
            String[] parts = argument.split("[:-]");
            ApiMessageType api = ApiMessageType.valueOf(parts[0]);
            for (short v = Short.parseShort(parts[1]); v <= Short.parseShort(parts[2]); v++) {
                for (boolean full : new boolean[] {true, false}) {
                    long seed = api.apiKey() * 1000L + v;
                    print(api, "request", v, api.requestSchemas(), api.newRequest(), seed, full);
                    print(api, "response", v, api.responseSchemas(), api.newResponse(), ~seed, full);
                }
            }
        }
    }

    static void print(ApiMessageType api, String direction, short version, Schema[] schemas,
                      ApiMessage message, long seed, boolean full) {
        Schema schema = schemas[version];
        Struct struct = new KafkaVectors(seed, full).struct(schema);
        ByteBuffer filled = ByteBuffer.allocate(schema.sizeOf(struct));
        schema.write(filled, struct);
        filled.flip();
        message.read(new ByteBufferAccessor(filled), version);
        ObjectSerializationCache cache = new ObjectSerializationCache();
        ByteBuffer out = ByteBuffer.allocate(message.size(cache, version));
        message.write(new ByteBufferAccessor(out), cache, version);
        String hex = HexFormat.of().formatHex(out.array(), 0, out.position());
        System.out.println(api.name() + " " + direction + " " + version + " "
            + (hex.isEmpty() ? "-" : hex));
    }

    Struct struct(Schema schema) {
        Struct struct = new Struct(schema);
        for (BoundField field : schema.fields())
            struct.set(field, value(field.def.type));
        return struct;
    }

    Object value(Type type) {
        if (type instanceof TaggedFields tagged)
            return tags(tagged);
        if (type instanceof Schema schema)
            return struct(schema);
        if (type.isArray()) {
            if (!full && type.isNullable())
                return null;
            Object[] elements = new Object[full ? 1 + random.nextInt(2) : random.nextInt(2)];
            for (int i = 0; i < elements.length; i++)
                elements[i] = value(type.arrayElementType().get());
            return elements;
        }
        if (!full && type.isNullable())
            return null;
        return scalar(type);
    }

    NavigableMap<Integer, Object> tags(TaggedFields type) {
        NavigableMap<Integer, Object> values = new TreeMap<>();
        if (full)
            type.fields().forEach((tag, field) -> values.put(tag, value(field.type)));
        return values;
    }

    Object scalar(Type type) {
        switch (type.toString()) {
            case "BOOLEAN":
                return random.nextBoolean();
            case "INT8":
                return (byte) random.nextInt();
            case "INT16":
                return (short) random.nextInt();
            case "UINT16":
                return random.nextInt(65536);
            case "INT32":
                return random.nextInt();
            case "INT64":
                return random.nextLong();
            case "UUID":
                return new Uuid(random.nextLong(), random.nextLong());
            case "STRING", "COMPACT_STRING", "NULLABLE_STRING", "COMPACT_NULLABLE_STRING":
                return new String(bytes(full ? 12 : 2), StandardCharsets.ISO_8859_1);
            case "BYTES", "COMPACT_BYTES", "NULLABLE_BYTES", "COMPACT_NULLABLE_BYTES":
                return ByteBuffer.wrap(bytes(full ? 20 : 2));
            case "RECORDS", "COMPACT_RECORDS":
                return MemoryRecords.readableRecords(ByteBuffer.wrap(bytes(full ? 150 : 2)));
            default:
                throw new IllegalArgumentException(type.toString());
        }
    }

    byte[] bytes(int lengthMax) {
        byte[] bytes = new byte[random.nextInt(lengthMax)];
        for (int i = 0; i < bytes.length; i++)
            bytes[i] = (byte) ('a' + random.nextInt(26));
        return bytes;
    }
}
