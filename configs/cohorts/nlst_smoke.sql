-- Twenty NLST chest CT series: ten of patients whose lung tumour NLSTSeg segmented, ten of patients without any
-- lesion annotation in IDC. About 1.6 GB.
--
-- The controls are *presumed* free of cancer: nobody segmented a tumour of theirs. Of about a thousand NLST
-- participants with lung cancer 601 have a segmentation, so among ten of 26,000 controls one undetected case is
-- unlikely, not impossible. The trial's clinical tables settle it; this query needs nothing but the packaged index.
WITH annotated AS (
    SELECT DISTINCT PatientID FROM index
    WHERE collection_id = 'nlst' AND analysis_result_id IN ('nlstseg', 'nlst_sybil', 'lidc_annot_nlst501')
),
scan AS (  -- descriptions read year,type,maker,model,kernel,...: type OPA is an original primary axial series
    SELECT * FROM index
    WHERE collection_id = 'nlst' AND Modality = 'CT' AND instanceCount BETWEEN 100 AND 250
      AND TransferSyntaxUID IN ('1.2.840.10008.1.2', '1.2.840.10008.1.2.1')
      AND SeriesDescription LIKE '_,OPA,%'
),
lesion AS (  -- the segmented series, where its number is the only one of its study
    SELECT scan.PatientID, scan.SeriesInstanceUID
    FROM index AS seg JOIN scan
      ON seg.StudyInstanceUID = scan.StudyInstanceUID
     AND regexp_extract(seg.SeriesDescription, 'Series: (\d+)', 1) = scan.SeriesNumber
    WHERE seg.analysis_result_id = 'nlstseg' AND seg.Modality = 'SEG'
    QUALIFY count(*) OVER (PARTITION BY seg.SeriesInstanceUID) = 1
),
control AS (  -- one series a patient, drawn by hash
    SELECT PatientID, SeriesInstanceUID FROM scan ANTI JOIN annotated USING (PatientID)
    QUALIFY row_number() OVER (PARTITION BY PatientID ORDER BY md5(SeriesInstanceUID)) = 1
)
(SELECT SeriesInstanceUID FROM lesion ORDER BY md5(SeriesInstanceUID) LIMIT 10)
UNION ALL
(SELECT SeriesInstanceUID FROM control ORDER BY md5(SeriesInstanceUID) LIMIT 10);
