use super::*;

#[test]
fn every_schema_that_the_document_refers_to_is_in_it_and_is_one() {
    let document = document();
    let text = document.to_string();
    let schemas = document["components"]["schemas"].as_object().expect("there are schemas");
    assert!(schemas.len() > 30, "{:?}", schemas.keys());
    for reference in text.split("\"#/components/schemas/").skip(1) {
        let name = reference.split('"').next().expect("a reference ends");
        assert!(schemas.contains_key(name), "{name} is referred to");
    }
    for schema in schemas.values() {
        assert!(jsonschema::meta::is_valid(schema), "{schema}");
    }
    let paths = document["paths"].as_object().expect("there are paths");
    assert_eq!(paths.len(), endpoints().len());
}
