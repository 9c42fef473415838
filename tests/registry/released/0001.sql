BEGIN TRANSACTION;
CREATE TABLE alias (
	kind VARCHAR(16) NOT NULL, 
	name VARCHAR(200) NOT NULL, 
	alias VARCHAR(200) NOT NULL, 
	version_id INTEGER NOT NULL, 
	moved_at DATETIME NOT NULL, 
	CONSTRAINT pk_alias PRIMARY KEY (kind, name, alias), 
	CONSTRAINT fk_alias_kind_name FOREIGN KEY(kind, name) REFERENCES version_name (kind, name), 
	CONSTRAINT fk_alias_version_id FOREIGN KEY(version_id) REFERENCES version (id)
);
INSERT INTO "alias" VALUES('transplant','anger/gemma-3','production',9,'2026-10-01 12:00:13.250000');
INSERT INTO "alias" VALUES('transplant','anger/gemma-3','candidate',6,'2026-10-01 12:00:14.250000');
CREATE TABLE alias_history (
	id INTEGER NOT NULL, 
	kind VARCHAR(16) NOT NULL, 
	name VARCHAR(200) NOT NULL, 
	alias VARCHAR(200) NOT NULL, 
	version_id INTEGER NOT NULL, 
	moved_at DATETIME NOT NULL, 
	CONSTRAINT pk_alias_history PRIMARY KEY (id), 
	CONSTRAINT fk_alias_history_version_id FOREIGN KEY(version_id) REFERENCES version (id)
);
INSERT INTO "alias_history" VALUES(1,'transplant','anger/gemma-3','production',6,'2026-10-01 12:00:12.250000');
INSERT INTO "alias_history" VALUES(2,'transplant','anger/gemma-3','production',9,'2026-10-01 12:00:13.250000');
INSERT INTO "alias_history" VALUES(3,'transplant','anger/gemma-3','candidate',6,'2026-10-01 12:00:14.250000');
CREATE TABLE blob (
	sha256 VARCHAR(64) NOT NULL, 
	size BIGINT NOT NULL, 
	CONSTRAINT pk_blob PRIMARY KEY (sha256)
);
INSERT INTO "blob" VALUES('44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a',2);
INSERT INTO "blob" VALUES('45b2b270f570cc898c1e908597756512f1ef3010a20c001fe0366d26a2706639',7);
INSERT INTO "blob" VALUES('60be9861750facbfad8758254a2f76c0cfe78d54459a3bc187d49b1401fcd8e8',3);
INSERT INTO "blob" VALUES('6167cdc1bef986f0fed8c4813997b38d12011eb9488a76a57cf009db06488a98',10);
INSERT INTO "blob" VALUES('74938f2e47c1e5ba4cdd456e5383e8aa64fb1ec53dac23e7d330d1f128bb0851',22);
CREATE TABLE concept (
	name VARCHAR(200) NOT NULL, 
	family VARCHAR(200), 
	description TEXT, 
	CONSTRAINT pk_concept PRIMARY KEY (name)
);
INSERT INTO "concept" VALUES('anger','emotion','Being angry; “hot”.');
CREATE TABLE concept_version (
	id INTEGER NOT NULL, 
	concept VARCHAR(200) NOT NULL, 
	model_id INTEGER, 
	estimator VARCHAR(200), 
	CONSTRAINT pk_concept_version PRIMARY KEY (id), 
	CONSTRAINT fk_concept_version_id FOREIGN KEY(id) REFERENCES version (id), 
	CONSTRAINT fk_concept_version_concept FOREIGN KEY(concept) REFERENCES concept (name), 
	CONSTRAINT fk_concept_version_model_id FOREIGN KEY(model_id) REFERENCES model (id)
);
INSERT INTO "concept_version" VALUES(4,'anger',2,'mean_difference');
INSERT INTO "concept_version" VALUES(8,'anger',2,'mean_difference');
CREATE TABLE file (
	version_id INTEGER NOT NULL, 
	filename VARCHAR(200) NOT NULL, 
	sha256 VARCHAR(64) NOT NULL, 
	size BIGINT NOT NULL, 
	CONSTRAINT pk_file PRIMARY KEY (version_id, filename), 
	CONSTRAINT fk_file_version_id FOREIGN KEY(version_id) REFERENCES version (id), 
	CONSTRAINT fk_file_sha256 FOREIGN KEY(sha256) REFERENCES blob (sha256)
);
INSERT INTO "file" VALUES(4,'vector.safetensors','45b2b270f570cc898c1e908597756512f1ef3010a20c001fe0366d26a2706639',7);
INSERT INTO "file" VALUES(4,'vector.json','44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a',2);
INSERT INTO "file" VALUES(5,'map.safetensors','60be9861750facbfad8758254a2f76c0cfe78d54459a3bc187d49b1401fcd8e8',3);
INSERT INTO "file" VALUES(6,'vector.safetensors','6167cdc1bef986f0fed8c4813997b38d12011eb9488a76a57cf009db06488a98',10);
INSERT INTO "file" VALUES(8,'vector.safetensors','74938f2e47c1e5ba4cdd456e5383e8aa64fb1ec53dac23e7d330d1f128bb0851',22);
INSERT INTO "file" VALUES(8,'vector.json','44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a',2);
INSERT INTO "file" VALUES(9,'vector.safetensors','6167cdc1bef986f0fed8c4813997b38d12011eb9488a76a57cf009db06488a98',10);
CREATE TABLE lineage_edge (
	child_id INTEGER NOT NULL, 
	role VARCHAR(200) NOT NULL, 
	parent_id INTEGER NOT NULL, 
	CONSTRAINT pk_lineage_edge PRIMARY KEY (child_id, role), 
	CONSTRAINT fk_lineage_edge_child_id FOREIGN KEY(child_id) REFERENCES version (id), 
	CONSTRAINT fk_lineage_edge_parent_id FOREIGN KEY(parent_id) REFERENCES version (id)
);
INSERT INTO "lineage_edge" VALUES(4,'model',2);
INSERT INTO "lineage_edge" VALUES(4,'texts',1);
INSERT INTO "lineage_edge" VALUES(5,'source',2);
INSERT INTO "lineage_edge" VALUES(5,'target',3);
INSERT INTO "lineage_edge" VALUES(5,'texts',1);
INSERT INTO "lineage_edge" VALUES(6,'vector',4);
INSERT INTO "lineage_edge" VALUES(6,'map',5);
INSERT INTO "lineage_edge" VALUES(6,'target',3);
INSERT INTO "lineage_edge" VALUES(7,'transplant',6);
INSERT INTO "lineage_edge" VALUES(8,'model',2);
INSERT INTO "lineage_edge" VALUES(8,'texts',1);
INSERT INTO "lineage_edge" VALUES(9,'vector',8);
INSERT INTO "lineage_edge" VALUES(9,'map',5);
INSERT INTO "lineage_edge" VALUES(9,'target',3);
INSERT INTO "lineage_edge" VALUES(10,'transplant',9);
CREATE TABLE map_version (
	id INTEGER NOT NULL, 
	source_model_id INTEGER, 
	target_model_id INTEGER, 
	estimator VARCHAR(200), 
	CONSTRAINT pk_map_version PRIMARY KEY (id), 
	CONSTRAINT fk_map_version_id FOREIGN KEY(id) REFERENCES version (id), 
	CONSTRAINT fk_map_version_source_model_id FOREIGN KEY(source_model_id) REFERENCES model (id), 
	CONSTRAINT fk_map_version_target_model_id FOREIGN KEY(target_model_id) REFERENCES model (id)
);
INSERT INTO "map_version" VALUES(5,2,3,'ridge');
CREATE TABLE model (
	id INTEGER NOT NULL, 
	reference TEXT NOT NULL, 
	revision TEXT, 
	fingerprint VARCHAR(128), 
	family VARCHAR(200), 
	hidden_size INTEGER, 
	n_blocks INTEGER, 
	licence TEXT, 
	CONSTRAINT pk_model PRIMARY KEY (id), 
	CONSTRAINT fk_model_id FOREIGN KEY(id) REFERENCES version (id)
);
INSERT INTO "model" VALUES(2,'org/SmolLM2',NULL,NULL,'llama',576,NULL,NULL);
INSERT INTO "model" VALUES(3,'org/gemma-3',NULL,NULL,NULL,NULL,NULL,NULL);
CREATE TABLE publication (
	id INTEGER NOT NULL, 
	version_id INTEGER NOT NULL, 
	repo VARCHAR(200) NOT NULL, 
	"commit" VARCHAR(64) NOT NULL, 
	tag VARCHAR(200), 
	created DATETIME NOT NULL, 
	CONSTRAINT pk_publication PRIMARY KEY (id), 
	CONSTRAINT fk_publication_version_id FOREIGN KEY(version_id) REFERENCES version (id), 
	CONSTRAINT uq_publication_version_id_repo_commit UNIQUE (version_id, repo, "commit")
);
INSERT INTO "publication" VALUES(1,6,'org/concept-anger','abc','1','2026-10-02 00:00:00.000000');
CREATE TABLE registry_schema (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT registry_schema_pkc PRIMARY KEY (version_num)
);
INSERT INTO "registry_schema" VALUES('0001');
CREATE TABLE result (
	id INTEGER NOT NULL, 
	validation_id INTEGER NOT NULL, 
	concept VARCHAR(200) NOT NULL, 
	protocol VARCHAR(200) NOT NULL, 
	split VARCHAR(200) NOT NULL, 
	arm VARCHAR(200) NOT NULL, 
	metric VARCHAR(200) NOT NULL, 
	dose DOUBLE, 
	value DOUBLE, 
	low DOUBLE, 
	high DOUBLE, 
	n INTEGER, 
	CONSTRAINT pk_result PRIMARY KEY (id), 
	CONSTRAINT fk_result_validation_id FOREIGN KEY(validation_id) REFERENCES validation (id)
);
INSERT INTO "result" VALUES(1,7,'anger','emotion','test','unsteered','logit_accuracy',NULL,0.12,0.08,0.17,180);
INSERT INTO "result" VALUES(2,7,'anger','emotion','test','transplanted','logit_accuracy',0.2,0.91,0.86,0.95,180);
INSERT INTO "result" VALUES(3,7,'anger','emotion','test','transplanted','gain_recovered',0.2,NULL,NULL,NULL,NULL);
INSERT INTO "result" VALUES(4,10,'anger','emotion','test','unsteered','logit_accuracy',NULL,0.12,0.08,0.17,180);
INSERT INTO "result" VALUES(5,10,'anger','emotion','test','transplanted','logit_accuracy',0.2,0.91,0.86,0.95,180);
INSERT INTO "result" VALUES(6,10,'anger','emotion','test','transplanted','gain_recovered',0.2,NULL,NULL,NULL,NULL);
CREATE TABLE run (
	id VARCHAR(200) NOT NULL, 
	flow_run_id VARCHAR(200), 
	mlflow_run_id VARCHAR(200), 
	"commit" VARCHAR(64), 
	spec_hash VARCHAR(128) NOT NULL, 
	spec JSON NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	started DATETIME NOT NULL, 
	ended DATETIME, 
	CONSTRAINT pk_run PRIMARY KEY (id)
);
INSERT INTO "run" VALUES('run-1','f','0f','c0ffee','ab','{"concepts": ["anger"], "source": "m"}','completed','2026-10-01 12:00:01.250000','2026-10-01 12:00:15.250000');
CREATE TABLE run_version (
	run_id VARCHAR(200) NOT NULL, 
	version_id INTEGER NOT NULL, 
	CONSTRAINT pk_run_version PRIMARY KEY (run_id, version_id), 
	CONSTRAINT fk_run_version_run_id FOREIGN KEY(run_id) REFERENCES run (id), 
	CONSTRAINT fk_run_version_version_id FOREIGN KEY(version_id) REFERENCES version (id)
);
INSERT INTO "run_version" VALUES('run-1',1);
INSERT INTO "run_version" VALUES('run-1',2);
INSERT INTO "run_version" VALUES('run-1',3);
INSERT INTO "run_version" VALUES('run-1',4);
INSERT INTO "run_version" VALUES('run-1',5);
INSERT INTO "run_version" VALUES('run-1',6);
INSERT INTO "run_version" VALUES('run-1',7);
CREATE TABLE text_set (
	id INTEGER NOT NULL, 
	hash VARCHAR(128) NOT NULL, 
	n_texts INTEGER, 
	split VARCHAR(200), 
	licence TEXT, 
	CONSTRAINT pk_text_set PRIMARY KEY (id), 
	CONSTRAINT fk_text_set_id FOREIGN KEY(id) REFERENCES version (id)
);
INSERT INTO "text_set" VALUES(1,'ab',3,NULL,NULL);
CREATE TABLE transplant_version (
	id INTEGER NOT NULL, 
	concept VARCHAR(200) NOT NULL, 
	vector_id INTEGER, 
	map_id INTEGER, 
	target_model_id INTEGER, 
	CONSTRAINT pk_transplant_version PRIMARY KEY (id), 
	CONSTRAINT fk_transplant_version_id FOREIGN KEY(id) REFERENCES version (id), 
	CONSTRAINT fk_transplant_version_concept FOREIGN KEY(concept) REFERENCES concept (name), 
	CONSTRAINT fk_transplant_version_vector_id FOREIGN KEY(vector_id) REFERENCES concept_version (id), 
	CONSTRAINT fk_transplant_version_map_id FOREIGN KEY(map_id) REFERENCES map_version (id), 
	CONSTRAINT fk_transplant_version_target_model_id FOREIGN KEY(target_model_id) REFERENCES model (id)
);
INSERT INTO "transplant_version" VALUES(6,'anger',4,5,3);
INSERT INTO "transplant_version" VALUES(9,'anger',8,5,3);
CREATE TABLE validation (
	id INTEGER NOT NULL, 
	protocol VARCHAR(200) NOT NULL, 
	split VARCHAR(200), 
	CONSTRAINT pk_validation PRIMARY KEY (id), 
	CONSTRAINT fk_validation_id FOREIGN KEY(id) REFERENCES version (id)
);
INSERT INTO "validation" VALUES(7,'emotion','test');
INSERT INTO "validation" VALUES(10,'emotion','test');
CREATE TABLE version (
	id INTEGER NOT NULL, 
	kind VARCHAR(16) NOT NULL, 
	name VARCHAR(200) NOT NULL, 
	number INTEGER NOT NULL, 
	digest VARCHAR(64) NOT NULL, 
	manifest JSON NOT NULL, 
	created DATETIME NOT NULL, 
	CONSTRAINT pk_version PRIMARY KEY (id), 
	CONSTRAINT fk_version_kind_name FOREIGN KEY(kind, name) REFERENCES version_name (kind, name), 
	CONSTRAINT uq_version_digest UNIQUE (digest), 
	CONSTRAINT uq_version_kind_name_number UNIQUE (kind, name, number)
);
INSERT INTO "version" VALUES(1,'text_set','corpus',1,'f7982b0c49ad066288b1abea8e318b52a2cd7033f34152b1fa362dd0739aa9b7','{"hash": "ab", "n_texts": 3}','2026-10-01 12:00:02.250000');
INSERT INTO "version" VALUES(2,'model','smollm2',1,'b31943c559110888bbc0a5cb8168dce065c80caabb2fed7c3a1fb69e75daed0e','{"family": "llama", "hidden_size": 576, "reference": "org/SmolLM2"}','2026-10-01 12:00:03.250000');
INSERT INTO "version" VALUES(3,'model','gemma-3',1,'998822dc88c6ff15ae722123e1b332d36459ef0e5330ae2f4a6a10f41133e54e','{"reference": "org/gemma-3"}','2026-10-01 12:00:04.250000');
INSERT INTO "version" VALUES(4,'vector','anger/smollm2',1,'79f24b32b594b8ba84d680ca94966a7799c1fb1a9754ab73008d05663a917569','{"concept": "anger", "estimator": "mean_difference", "note": ""}','2026-10-01 12:00:05.250000');
INSERT INTO "version" VALUES(5,'map','smollm2/gemma-3',1,'b48f07357b2c25f721af085e7354a73edf8ca0bd3b0e974ff31b1aa6a0818b67','{"estimator": "ridge", "lambda": 0.3}','2026-10-01 12:00:06.250000');
INSERT INTO "version" VALUES(6,'transplant','anger/gemma-3',1,'5ec062cfbc508229f60683f7b8dda960fb7145ccd043648a66c091c666ba75df','{"concept": "anger", "note": ""}','2026-10-01 12:00:07.250000');
INSERT INTO "version" VALUES(7,'validation','anger/gemma-3/emotion',1,'7be16b80d16903c6663865374c9c12022c3987f600230e2fadcf00d36a8139ed','{"note": "", "protocol": "emotion", "split": "test"}','2026-10-01 12:00:08.250000');
INSERT INTO "version" VALUES(8,'vector','anger/smollm2',2,'c43171797f3f983a2036535f8de7d9bb3292220f57e6c3957d9d3ffc162c6645','{"concept": "anger", "estimator": "mean_difference", "note": "it''s the second"}','2026-10-01 12:00:09.250000');
INSERT INTO "version" VALUES(9,'transplant','anger/gemma-3',2,'a891edf0f2df06441f080df17a783a5b86dbcee0a0416d2b046cf8fa64d75caa','{"concept": "anger", "note": "it''s the second"}','2026-10-01 12:00:10.250000');
INSERT INTO "version" VALUES(10,'validation','anger/gemma-3/emotion',2,'4d297ad4d9ccecc1e4c9f6c43c242448c3794bf9ae917519a1d31de876b553cf','{"note": "it''s the second", "protocol": "emotion", "split": "test"}','2026-10-01 12:00:11.250000');
CREATE TABLE version_name (
	kind VARCHAR(16) NOT NULL, 
	name VARCHAR(200) NOT NULL, 
	last INTEGER NOT NULL, 
	CONSTRAINT pk_version_name PRIMARY KEY (kind, name)
);
INSERT INTO "version_name" VALUES('text_set','corpus',1);
INSERT INTO "version_name" VALUES('model','smollm2',1);
INSERT INTO "version_name" VALUES('model','gemma-3',1);
INSERT INTO "version_name" VALUES('vector','anger/smollm2',2);
INSERT INTO "version_name" VALUES('map','smollm2/gemma-3',1);
INSERT INTO "version_name" VALUES('transplant','anger/gemma-3',2);
INSERT INTO "version_name" VALUES('validation','anger/gemma-3/emotion',2);
CREATE INDEX ix_run_flow_run_id ON run (flow_run_id);
CREATE INDEX ix_run_mlflow_run_id ON run (mlflow_run_id);
CREATE INDEX ix_run_spec_hash ON run (spec_hash);
CREATE INDEX ix_run_started ON run (started);
CREATE INDEX ix_alias_alias ON alias (alias);
CREATE INDEX ix_alias_version_id ON alias (version_id);
CREATE INDEX ix_alias_history_kind_name_alias ON alias_history (kind, name, alias);
CREATE INDEX ix_file_sha256 ON file (sha256);
CREATE INDEX ix_lineage_edge_parent_id ON lineage_edge (parent_id);
CREATE INDEX ix_publication_version_id ON publication (version_id);
CREATE INDEX ix_publication_repo ON publication (repo);
CREATE INDEX ix_run_version_version_id ON run_version (version_id);
CREATE INDEX ix_model_reference ON model (reference);
CREATE INDEX ix_model_fingerprint ON model (fingerprint);
CREATE INDEX ix_model_family ON model (family);
CREATE INDEX ix_text_set_hash ON text_set (hash);
CREATE INDEX ix_validation_protocol ON validation (protocol);
CREATE INDEX ix_result_validation_id ON result (validation_id);
CREATE INDEX ix_result_concept ON result (concept);
CREATE INDEX ix_result_metric_value ON result (metric, value);
CREATE INDEX ix_concept_version_concept ON concept_version (concept);
CREATE INDEX ix_concept_version_model_id ON concept_version (model_id);
CREATE INDEX ix_concept_version_estimator ON concept_version (estimator);
CREATE INDEX ix_map_version_source_model_id ON map_version (source_model_id);
CREATE INDEX ix_map_version_target_model_id ON map_version (target_model_id);
CREATE INDEX ix_map_version_estimator ON map_version (estimator);
CREATE INDEX ix_transplant_version_concept ON transplant_version (concept);
CREATE INDEX ix_transplant_version_vector_id ON transplant_version (vector_id);
CREATE INDEX ix_transplant_version_map_id ON transplant_version (map_id);
CREATE INDEX ix_transplant_version_target_model_id ON transplant_version (target_model_id);
COMMIT;
