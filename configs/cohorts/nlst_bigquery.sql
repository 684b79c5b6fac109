-- Every CT series of NLST and every segmentation that somebody published for one, from IDC's table of instances in
-- BigQuery. {dataset} is the one that the run configures. MIN stands where all instances of a series agree.
SELECT
  MIN(collection_id) AS collection,
  MIN(analysis_result_id) AS analysis_result,
  MIN(PatientID) AS patient,
  MIN(StudyInstanceUID) AS study_uid,
  CAST(MIN(StudyDate) AS STRING) AS study_date,
  SeriesInstanceUID AS series_uid,
  CAST(MIN(SeriesNumber) AS STRING) AS series_number,
  MIN(SeriesDescription) AS series_description,
  MIN(Modality) AS modality,
  MIN(Manufacturer) AS manufacturer,
  MIN(PatientSex) AS sex,
  MIN(PatientAge) AS age,
  MIN(license_short_name) AS license,
  MIN(source_DOI) AS doi,
  COUNT(*) AS instances,
  SUM(instance_size) AS bytes,
  MIN(series_aws_url) AS url,
  STRING_AGG(DISTINCT TransferSyntaxUID, ',' ORDER BY TransferSyntaxUID) AS transfer_syntax_uid
FROM `{dataset}.dicom_all`
WHERE collection_id = 'nlst' AND Modality IN ('CT', 'SEG')
GROUP BY SeriesInstanceUID
